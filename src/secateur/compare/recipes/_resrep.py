"""The recipe ``resrep``: train the full network, then let ResRep narrow it while it trains on."""

from __future__ import annotations

from typing import ClassVar, Literal

from secateur.compare.recipes._job import Job, Made
from secateur.compare.recipes._train_on import train_then_narrow
from secateur.training import trainer


class ResRepRecipe(trainer.ResRepSettings):
    """Narrows a pre-trained network with `secateur.ResRep` during its fine-tuning.

    Attributes:
        recipe: The name; the rest is as in the section ``[search]`` of a run.
    """

    recipe: Literal["resrep"]
    method: Literal["resrep"] = "resrep"
    has_budget: ClassVar[bool] = True
    fine_tunes: ClassVar[bool] = True

    def carry_out(self, job: Job) -> Made:
        """Train, then narrow and train on in one.

        Args:
            job: The cell.

        Returns:
            The network and the bill of both.
        """
        settings = self.model_dump(exclude={"recipe"})
        return train_then_narrow(job, trainer.ResRepConfig(target_macs=job.target, **settings))
