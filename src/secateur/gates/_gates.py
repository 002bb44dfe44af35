"""Gates that multiply slices of weights, closed and opened in place around a training step.

A unit's gate multiplies the slices of the weights that consume the unit, a layer's gate the last
affine operation of its branch. Both are exact and touch weights only, never activations.

Letters: U units over all families, L layers, G gates (U + L and one that is always open).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateur.gates._pairing import pairing
from secateur.gates._slots import Slot, find_slots
from secateur.structure import Live, Structure


class Gates:
    """Hides units and layers of a model by zeroing weights, and reads the gates' gradients.

    One step: `close_`, the user's forward and backward, `open_`, `gradients`,
    `zero_closed_gradients_`. Weights are written through ``.data``: autograd does not notice, so
    a backward pass in between uses the zeroed weights, as it must. The memory is one copy of the
    gated weights while gates are closed.

    A Gates object belongs to one `Live`: build a new one after every removal.

    Args:
        model: The model, in state ``live`` of ``structure``.
        structure: What the model is made of.
        live: What is left of it.

    Example:
        >>> from secateur.structure import trace
        >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> structure = trace(net, torch.zeros(1, 8))
        >>> gates = Gates(net, structure, structure.everything())
        >>> gates.close_(torch.tensor([False, True, True, True]), torch.ones(0, dtype=torch.bool))
        >>> net[2].weight.any(dim=0).tolist()
        [False, True, True, True]
        >>> gates.open_()
        >>> net[2].weight.any(dim=0).tolist()
        [True, True, True, True]
    """

    def __init__(self, model: nn.Module, structure: Structure, live: Live) -> None:
        parameters = dict(model.named_parameters())
        slots = find_slots(structure, live)
        self.names = tuple(dict.fromkeys(slot.tensor for slot in slots))
        self.parameters = tuple(parameters[name] for name in self.names)
        self._aliases = tuple(structure.tensors[name].aliases for name in self.names)
        self._num_units = structure.num_units
        self._num_layers = structure.num_layers
        self._factors = [
            _Factor(slot, self.parameters[number], number)
            for number, name in enumerate(self.names)
            for slot in slots
            if slot.tensor == name
        ]
        self._shared = _shared(self._factors)
        self._rounds = _rounds(self._factors)
        self._device = self.parameters[0].device if self.parameters else torch.device("cpu")
        gate = torch.cat([factor.gate for factor in self._factors] or [torch.empty(0).long()])
        num_gates = structure.num_units + structure.num_layers + 1
        self._gate_of_position = gate.to(self._device)
        self._by_gate = torch.argsort(gate, stable=True).to(self._device)
        self._positions_G = torch.bincount(gate, minlength=num_gates).to(self._device)
        self._always = torch.ones(structure.num_layers + 1, device=self._device)
        self._sizes = [len(factor.gate) for factor in self._factors]
        self._masks: list[Tensor] | None = None
        self._copies: list[Tensor] = []

    @property
    def closed(self) -> bool:
        """Whether weights are zeroed right now."""
        return bool(self._copies)

    def close_(self, units_on_U: Tensor, layers_on_L: Tensor) -> None:
        """Zero the slices of everything that is off; what was closed before is opened first.

        Args:
            units_on_U: Bool ``[U]``, True where the unit stays on.
            layers_on_L: Bool ``[L]``, True where the layer stays on.
        """
        self.open_()
        on_G = torch.cat([units_on_U, layers_on_L, units_on_U.new_ones(1)])
        on = on_G.to(self._device, torch.float32)[self._gate_of_position]
        self._masks = [
            mask.view(factor.shape)
            for factor, mask in zip(self._factors, on.split(self._sizes), strict=True)
        ]
        self.close_again_()

    def close_again_(self) -> None:
        """Zero what the last `close_` zeroed, after `open_`."""
        if self._masks is None or self.closed:
            return
        weights = [parameter.data for parameter in self.parameters]
        self._copies = [torch.empty_like(weight) for weight in weights]
        torch._foreach_copy_(self._copies, weights)
        self._mask_(weights)
        torch.clear_autocast_cache()

    def open_(self) -> None:
        """Restore every weight, bit for bit; what was closed stays remembered."""
        if not self.closed:
            return
        torch._foreach_copy_([parameter.data for parameter in self.parameters], self._copies)
        self._copies = []
        torch.clear_autocast_cache()

    @contextmanager
    def also_closed(self, units_on_U: Tensor, layers_on_L: Tensor) -> Generator[None]:
        """Close other gates for a moment, then return to the present ones.

        Args:
            units_on_U: As in `close_`.
            layers_on_L: As in `close_`.

        Yields:
            Nothing; inside the block the weights are zeroed as asked.
        """
        masks, closed = self._masks, self.closed
        self.close_(units_on_U, layers_on_L)
        try:
            yield
        finally:
            self.open_()
            self._masks = masks
            if closed:
                self.close_again_()

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Read d loss / d gate of every unit and layer, whether its gate was open or closed.

        The gradient is the sum of weight times gradient over the slices the gate multiplies, with
        the weights as they are when the gate is open; where several gates multiply one parameter,
        the other ones count as they were drawn.

        Returns:
            Gradients of the units ``[U]`` and of the layers ``[L]``, float32 (float64 for double
            weights); 0 for what is gone and where a parameter has no gradient.
        """
        weights = self._copies or [parameter.data for parameter in self.parameters]
        grads = {n: p.grad for n, p in enumerate(self.parameters) if p.grad is not None}
        products: dict[int, Tensor] = {}
        if grads:
            product = torch._foreach_mul([weights[n] for n in grads], list(grads.values()))
            products = dict(zip(grads, product, strict=True))
            for n in (n for n in grads if weights[n].is_complex()):
                products[n] = pairing(weights[n], grads[n])
        sums = [self._sum(number, products) for number in range(len(self._factors))]
        return self._by_unit_and_layer(sums)

    def weights_at(self, gate_U: Tensor) -> tuple[Tensor, ...]:
        """Return the gated weights as gates of units would make them, and leave the model alone.

        A pure function of its argument, so that `torch.func` can differentiate and vectorise it.

        Args:
            gate_U: What every unit's gate multiplies with, ``[U]``; 1 is open, 0 closed.

        Returns:
            One tensor for each of ``parameters``.
        """
        gate_G = torch.cat([gate_U.to(self._device), self._always])
        values = gate_G[self._gate_of_position].split(self._sizes)
        weights = list(self._copies or [parameter.data for parameter in self.parameters])
        for factor, value in zip(self._factors, values, strict=True):
            weight = weights[factor.parameter]
            weights[factor.parameter] = weight * value.view(factor.shape).to(weight.dtype)
        return tuple(weights)

    def directions(self, speed_U: Tensor) -> tuple[Tensor, ...]:
        """Return how `weights_at` moves where gates move, at open gates.

        Args:
            speed_U: Change of every unit's gate per unit of time, ``[U]``.

        Returns:
            Change per unit of time of every tensor in ``parameters``: the weight times the sum of
            the speeds of all gates that multiply it.
        """
        speed_G = torch.cat([speed_U.to(self._device), torch.zeros_like(self._always)])
        speeds = speed_G[self._gate_of_position].split(self._sizes)
        weights = list(self._copies or [parameter.data for parameter in self.parameters])
        total = [torch.zeros_like(weight) for weight in weights]
        for factor, speed in zip(self._factors, speeds, strict=True):
            total[factor.parameter] += speed.view(factor.shape).to(total[factor.parameter].dtype)
        return tuple(torch._foreach_mul(total, weights))

    def zero_closed_gradients_(self) -> None:
        """Zero the gradients of the slices that were closed, and forget what was closed.

        Whatever else belongs to a closed unit or branch received no gradient: it only acts
        through these slices.
        """
        if self._masks is None:
            return
        self._mask_([parameter.grad for parameter in self.parameters])
        self._masks = None

    def restored(self) -> dict[str, Tensor]:
        """Return copies of the gated weights as they are when everything is open.

        Returns:
            Tensors by every qualified name of the parameter; empty while nothing is closed.
        """
        return {
            alias: copy.clone()
            for aliases, copy in zip(self._aliases, self._copies, strict=False)
            for alias in aliases
        }

    def _mask_(self, tensors: Sequence[Tensor | None]) -> None:
        """Multiply tensors, one a parameter, by the masks of their factors in place."""
        assert self._masks is not None
        for together in self._rounds:
            reached = [
                (tensor, self._masks[number])
                for number in together
                if (tensor := tensors[self._factors[number].parameter]) is not None
            ]
            if reached:
                masked, masks = zip(*reached, strict=True)
                torch._foreach_mul_(masked, masks)

    def _sum(self, number: int, products: dict[int, Tensor]) -> Tensor:
        """Sum one parameter's products over all but the factor's axis, ``[P]``."""
        factor = self._factors[number]
        product = products.get(factor.parameter)
        if product is None:
            return torch.zeros(len(factor.gate), device=self._device)
        if self._masks is not None:
            for other in self._shared.get(number, ()):
                product = product * self._masks[other].real
        accumulate = torch.promote_types(product.dtype, torch.float32)
        if factor.others:
            product = product.sum(dim=factor.others, dtype=accumulate)
        return product.to(accumulate).reshape(-1)

    def _by_unit_and_layer(self, sums: list[Tensor]) -> tuple[Tensor, Tensor]:
        if not sums:
            zeros = torch.zeros(self._num_units + self._num_layers)
            return zeros[: self._num_units], zeros[self._num_units :]
        # A scatter-add of floats is not reproducible on GPUs; sums of sorted segments are.
        gradient_G = torch.segment_reduce(
            torch.cat(sums)[self._by_gate], "sum", lengths=self._positions_G, unsafe=True
        )
        units = gradient_G[: self._num_units]
        return units, gradient_G[self._num_units : -1]


class _Factor:
    """A slot, its parameter's number, and the shapes that masking and summing need."""

    def __init__(self, slot: Slot, parameter: nn.Parameter, number: int) -> None:
        self.gate = slot.gate
        self.parameter = number
        axes = range(parameter.ndim)
        self.others = tuple(axis for axis in axes if axis != slot.axis)
        self.shape = tuple(-1 if axis == slot.axis else 1 for axis in axes)


def _shared(factors: list[_Factor]) -> dict[int, tuple[int, ...]]:
    """Map each factor to the other factors of its parameter, where there are any."""
    by_parameter: dict[int, list[int]] = {}
    for number, factor in enumerate(factors):
        by_parameter.setdefault(factor.parameter, []).append(number)
    return {
        number: tuple(other for other in together if other != number)
        for together in by_parameter.values()
        if len(together) > 1
        for number in together
    }


def _rounds(factors: list[_Factor]) -> list[list[int]]:
    """Split factors so that no parameter occurs twice in a round: a foreach call may overlap."""
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for number, factor in enumerate(factors):
        nth = seen.get(factor.parameter, 0)
        seen[factor.parameter] = nth + 1
        if nth == len(rounds):
            rounds.append([])
        rounds[nth].append(number)
    return rounds
