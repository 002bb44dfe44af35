"""Random networks written as source text, so that one that fails can be read and kept as a test."""

from tests.properties.written._network import Architecture, architecture

__all__ = ["Architecture", "architecture"]
