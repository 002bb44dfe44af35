"""`python -m secateur` is the program `secateur`."""

from secateur.cli import app

if __name__ == "__main__":
    app()
