"""The recipes by name."""

from typing import Annotated

from pydantic import Field

from secateur.compare.recipes._aofp import AOFPRecipe
from secateur.compare.recipes._dense import DenseRecipe
from secateur.compare.recipes._narrowed import NarrowedRecipe
from secateur.compare.recipes._prune import PruneRecipe
from secateur.compare.recipes._resrep import ResRepRecipe
from secateur.compare.recipes._search import SearchRecipe

AnyRecipe = Annotated[
    DenseRecipe | NarrowedRecipe | SearchRecipe | PruneRecipe | AOFPRecipe | ResRepRecipe,
    Field(discriminator="recipe"),
]
"""Any of them; in a config the setting ``recipe`` says which."""

CONTROLS: dict[str, AnyRecipe] = {
    "dense": DenseRecipe(recipe="dense"),
    "narrowed": NarrowedRecipe(recipe="narrowed"),
    "random": PruneRecipe(recipe="prune", score="random"),
    "complexity-aware": SearchRecipe(recipe="search", method="complexity-aware"),
}
"""Methods that are part of every comparison, whether a config names them or not."""
