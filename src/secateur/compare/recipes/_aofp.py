"""The recipe ``aofp``: train the full network, then let AOFP narrow it while it trains on."""

from __future__ import annotations

from typing import ClassVar, Literal

from secateur.compare.recipes._job import Job, Made
from secateur.compare.recipes._train_on import train_then_narrow
from secateur.training import trainer


class AOFPRecipe(trainer.AOFPSettings):
    """Narrows a pre-trained network with `secateur.AOFP` during its fine-tuning.

    Attributes:
        recipe: The name; the rest is as in the section ``[search]`` of a run.
    """

    recipe: Literal["aofp"]
    method: Literal["aofp"] = "aofp"
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
        return train_then_narrow(job, trainer.AOFPConfig(target_macs=job.target, **settings))
