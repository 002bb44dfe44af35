"""The recipe ``dense``: the full network, trained from scratch."""

from __future__ import annotations

from typing import ClassVar, Literal

from secateur.compare.recipes._job import Job, Made
from secateur.training import trainer


class DenseRecipe(trainer.Section):
    """Trains the full network; every other network is measured against it.

    Attributes:
        recipe: The name.
    """

    recipe: Literal["dense"]
    has_budget: ClassVar[bool] = False
    fine_tunes: ClassVar[bool] = False

    def carry_out(self, job: Job) -> Made:
        """Train the full network.

        Args:
            job: The cell.

        Returns:
            The network and its bill.
        """
        return job.train("training", job.base)
