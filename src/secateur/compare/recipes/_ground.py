"""What all cells of a comparison have in common: the data, and the network at its full size."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from secateur.data import Dataset
from secateur.models import ModelShape
from secateur.training import trainer


class Ground:
    """The data and the full network, made when they are first needed.

    Args:
        config: Settings of a dense training.
    """

    def __init__(self, config: trainer.Config) -> None:
        self._config = config

    @cached_property
    def dataset(self) -> Dataset:
        """The images."""
        return trainer.load_data(self._config)

    @cached_property
    def shape(self) -> ModelShape:
        """What the network fits."""
        return trainer.network_shape(self._config, self.dataset)

    @property
    def image(self) -> Tensor:
        """One image of zeros, ``[1, C, H, W]``, on the CPU."""
        return torch.zeros(1, self.shape.in_channels, self.shape.image_size, self.shape.image_size)

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates of one image in the full network."""
        return trainer.count_macs(self.network(), self.image)

    @cached_property
    def params(self) -> int:
        """Parameters of the full network."""
        return sum(parameter.numel() for parameter in self.network().parameters())

    def network(self, width: float | None = None) -> nn.Module:
        """Build the network with random weights; torch's generators are left as they were.

        Args:
            width: Factor on all widths; None is the config's own.

        Returns:
            The network, on the CPU.

        Raises:
            UsageError: A network of another library was asked for at another width.
        """
        model = self._config.model
        if width is not None:
            model = model.model_copy(update={"width": width})
        config = self._config.model_copy(update={"model": model})
        with torch.random.fork_rng(devices=[]):
            return trainer.build_network(config, trainer.network_shape(config, self.dataset))
