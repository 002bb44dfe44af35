"""The recipe ``search``: one training in which the network finds its own size."""

from __future__ import annotations

from typing import ClassVar, Literal

from secateur.compare.recipes._job import Job, Made
from secateur.training import trainer


class SearchRecipe(trainer.SearchSettings):
    """Trains with complexity-aware structure discovery towards the budget.

    Attributes:
        recipe: The name; the rest is as in the section ``[search]`` of a run.
    """

    recipe: Literal["search"]
    has_budget: ClassVar[bool] = True
    fine_tunes: ClassVar[bool] = False

    def carry_out(self, job: Job) -> Made:
        """Train the full network while it gets smaller.

        Args:
            job: The cell.

        Returns:
            The network and its bill.
        """
        settings = self.model_dump(exclude={"recipe"})
        search = trainer.SearchConfig(target_macs=job.target, **settings)
        return job.train("training", job.base.model_copy(update={"search": search}))
