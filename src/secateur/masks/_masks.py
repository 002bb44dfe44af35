"""Masks on single weights that hold through training: hooks on gradients and on the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from secateur.errors import UsageError
from secateur.masks._bits import pack, unpack
from secateur.masks._maskable import maskable


class Masks:
    """Holds single weights of a model at zero while an optimizer trains the others.

    What is masked is zero, exactly, in four places: in the weight, in its gradient as soon as a
    backward pass has written it (so that clipping by norm does not count it), and, after each
    update, in the weight again and in every tensor of optimizer state of the weight's shape.
    An optimizer whose updates mix entries, as by orthogonalisation, thus holds the mask, too.
    Weights that are kept are untouched: with nothing masked, training is the same, bit for bit.

    After loading weights into the model call `apply_`; the next update would mask them anyway.

    Args:
        model: The model. Its parameters have to stay the same objects.
        optimizer: Any optimizer of these parameters.
        names: Qualified names of the parameters to mask; None for the weights of all linear,
            convolutional, attention and recurrent modules.

    Attributes:
        names: Qualified names of the parameters that have a mask.

    Raises:
        UsageError: A name is unknown, or the optimizer does not hold one of the parameters.

    Example:
        >>> net = nn.Linear(4, 2, bias=False)
        >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.01)
        >>> masks = Masks(net, optimizer)
        >>> masks.set_({"weight": torch.tensor([[True, False, True, False]]).expand(2, 4)})
        >>> net(torch.randn(3, 4)).sum().backward()
        >>> optimizer.step()
        >>> net.weight.bool().tolist()
        [[True, False, True, False], [True, False, True, False]]
        >>> masks.kept_share
        0.5
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, names: Iterable[str] | None = None
    ) -> None:
        self._parameters = maskable(model, names)
        self.names = tuple(self._parameters)
        self._optimizer = optimizer
        _check_held(self._parameters, optimizer)
        self._masked = {
            name: torch.zeros_like(parameter, dtype=torch.bool, requires_grad=False)
            for name, parameter in self._parameters.items()
        }
        self._handles: list[RemovableHandle] = []
        self._register()

    @property
    def kept(self) -> dict[str, Tensor]:
        """New bool tensors by name, in the parameters' shapes, True where a weight is left."""
        return {name: ~masked for name, masked in self._masked.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters that have a mask, by name, without gradients; not copies."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    @property
    def num_weights(self) -> int:
        """Number of weights that have a mask, kept or not."""
        return sum(masked.numel() for masked in self._masked.values())

    @property
    def num_kept(self) -> int:
        """Number of weights that are left."""
        return self.num_weights - sum(int(masked.sum()) for masked in self._masked.values())

    @property
    def kept_share(self) -> float:
        """Weights that are left, as a share of those that have a mask."""
        return self.num_kept / self.num_weights

    @property
    def emptied(self) -> tuple[str, ...]:
        """Names of the parameters of which nothing is left: what they feed is constant."""
        return tuple(name for name, masked in self._masked.items() if bool(masked.all()))

    def set_(self, kept: Mapping[str, Tensor]) -> None:
        """Replace masks and zero what they mask. A weight that comes back starts from zero.

        Args:
            kept: Bool tensors by name, True where a weight is left; names not in it keep the mask
                they have.

        Raises:
            UsageError: A name, shape or dtype is not that of a masked parameter.
        """
        for name, mask in kept.items():
            _check_mask(name, mask, self._parameters)
        for name, mask in kept.items():
            self._masked[name] = (~mask).to(self._parameters[name].device)
        self.apply_()

    @torch.no_grad()
    def apply_(self) -> None:
        """Zero what is masked in weights, gradients and optimizer state."""
        for name, parameter in self._parameters.items():
            self._zero_gradient_(name, parameter)
            self._zero_weight_and_state_(name, parameter)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks as bits.

        Returns:
            Name to uint8 ``[ceil(n / 8)]``, on the CPU, a bit set where a weight is left; fit for
            safetensors.
        """
        return {name: pack(~masked).cpu() for name, masked in self._masked.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over masks that `state_dict` returned, and zero what they mask.

        Args:
            state: Masks of all parameters that have one here.

        Raises:
            UsageError: The state is that of other parameters.
        """
        if set(state) != set(self.names):
            odd = sorted(set(state) ^ set(self.names))
            raise UsageError(
                f"The saved masks and this model's differ in {', '.join(odd)}. Make Masks with the "
                "model and the names that the saved ones were made with."
            )
        self.set_(
            {name: unpack(state[name], masked.shape) for name, masked in self._masked.items()}
        )

    def detach(self) -> None:
        """Take the hooks away: what is masked is zero now, and may be trained again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _register(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter.requires_grad:
                hook = _GradientHook(self, name)
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
        before = self._optimizer.register_step_pre_hook(self._before_update)
        after = self._optimizer.register_step_post_hook(self._after_update)
        self._handles += [before, after]

    @torch.no_grad()
    def _before_update(self, optimizer: Optimizer, *_: Any) -> None:
        """Gradients may have been written by hand."""
        for name, parameter in self._parameters.items():
            self._zero_gradient_(name, parameter)

    @torch.no_grad()
    def _after_update(self, optimizer: Optimizer, *_: Any) -> None:
        for name, parameter in self._parameters.items():
            self._zero_weight_and_state_(name, parameter)

    def _zero_weight_and_state_(self, name: str, parameter: Tensor) -> None:
        self._zero_(name, parameter.data)
        for value in self._optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                self._zero_(name, value)

    def _zero_gradient_(self, name: str, parameter: Tensor) -> None:
        # A sparse gradient is left alone: the weight and its state are zeroed after the update.
        if parameter.grad is not None and not parameter.grad.is_sparse:
            self._zero_(name, parameter.grad)

    def _zero_(self, name: str, tensor: Tensor) -> None:
        masked = self._masked[name]
        if masked.shape != tensor.shape:
            raise UsageError(
                f"{name} has the shape {list(tensor.shape)}, and its mask is for "
                f"{list(masked.shape)}. Units were removed since the masks were made: detach these "
                "masks and make new ones."
            )
        if masked.device != tensor.device:
            masked = self._masked[name] = masked.to(tensor.device)
        # Not a product: zero times an overflow would be NaN.
        tensor.masked_fill_(masked, 0.0)


class _GradientHook:
    """Masks a gradient as it arrives; a class, so that a loop over names binds each of them."""

    def __init__(self, masks: Masks, name: str) -> None:
        self._masks = masks
        self._name = name

    @torch.no_grad()
    def __call__(self, parameter: Tensor) -> None:
        self._masks._zero_gradient_(self._name, parameter)


def _check_held(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    foreign = [n for n, p in parameters.items() if p.requires_grad and id(p) not in held]
    if foreign:
        raise UsageError(
            f"The optimizer does not hold {', '.join(foreign[:3])}"
            f"{f' and {len(foreign) - 3} more' if len(foreign) > 3 else ''}, so a mask could not "
            "be held there. Make the optimizer from the same model, or say with names=[...] which "
            "of its parameters are masked."
        )


def _check_mask(name: str, mask: Tensor, parameters: Mapping[str, nn.Parameter]) -> None:
    if name not in parameters:
        raise UsageError(
            f"There is a mask for {name!r}, which is not one of the masked parameters "
            f"{', '.join(parameters)}. Use these names, or make Masks with names=[...]."
        )
    if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
        raise UsageError(
            f"The mask of {name} is {mask.dtype} of shape {list(mask.shape)}, and has to be "
            f"torch.bool of shape {list(parameters[name].shape)}: True where a weight is left."
        )
