"""Ways to get a network of a given size, one file each."""

from secateur.compare.recipes._aofp import AOFPRecipe
from secateur.compare.recipes._bill import Bill, Item
from secateur.compare.recipes._dense import DenseRecipe
from secateur.compare.recipes._ground import Ground
from secateur.compare.recipes._job import Job, Made, OnRun, Recipe
from secateur.compare.recipes._narrowed import NarrowedRecipe, factor_for
from secateur.compare.recipes._prune import PruneRecipe
from secateur.compare.recipes._registry import CONTROLS, AnyRecipe
from secateur.compare.recipes._resrep import ResRepRecipe
from secateur.compare.recipes._schedule import FineTuneConfig, Schedules, schedules
from secateur.compare.recipes._search import SearchRecipe

__all__ = [
    "CONTROLS",
    "AOFPRecipe",
    "AnyRecipe",
    "Bill",
    "DenseRecipe",
    "FineTuneConfig",
    "Ground",
    "Item",
    "Job",
    "Made",
    "NarrowedRecipe",
    "OnRun",
    "PruneRecipe",
    "Recipe",
    "ResRepRecipe",
    "Schedules",
    "SearchRecipe",
    "factor_for",
    "schedules",
]
