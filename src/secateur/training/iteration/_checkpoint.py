"""The state of a run over levels in a folder, and the settings that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateur.errors import UsageError


class Checkpoint:
    """Reads and writes the state at the end of a level; a crash leaves the old one or the new.

    Args:
        folder: Where it lies.
        settings: What a run that goes on has to have in common with the one that stopped.
        device: Where the run computes.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], device: torch.device) -> None:
        self._folder = folder
        self._settings = settings
        self._device = device

    def take_up_(self) -> dict[str, Any] | None:
        """Read the state, and set torch's global generators to where they stood.

        Returns:
            What was written last; None if there is nothing.

        Raises:
            UsageError: It is of a run with other settings.
            StorageError: It is damaged.
        """
        # Imported here: the trainer and what it stands on are not needed without a checkpoint.
        from secateur.training.trainer._checkpoint import has_checkpoint, read_checkpoint
        from secateur.training.trainer._random_state import load_generators_

        if not has_checkpoint(self._folder):
            return None
        content = read_checkpoint(self._folder)
        theirs = content.get("settings", {})
        odd = [
            f"{name}={theirs.get(name)!r} instead of {value!r}"
            for name, value in self._settings.items()
            if theirs.get(name) != value
        ]
        if odd:
            raise UsageError(
                f"The checkpoint in {self._folder} is of a run with {', '.join(odd)}. Go on with "
                "the settings it was begun with, or name another folder."
            )
        load_generators_(self._device, content["generators"])
        state: dict[str, Any] = content["state"]
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state; torch's global generators go with it.

        Args:
            state: Dictionaries, lists and tuples of tensors, numbers, texts and None.

        Raises:
            StorageError: The folder cannot be written.
        """
        from secateur.training.trainer._checkpoint import write_checkpoint
        from secateur.training.trainer._random_state import save_generators

        generators = save_generators(self._device)
        content = {"settings": self._settings, "generators": generators, "state": state}
        write_checkpoint(self._folder, content)
