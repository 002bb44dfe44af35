"""A model without chance: dropout and drop-path off, whatever mode the model is in."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.surgery._grouped import grouped_product

Values = dict[str, Any]


class Steady(TorchFunctionMode):
    """Makes every forward that runs inside deterministic.

    Dropout passes its input on, attention drops nothing, and the samples that drop-path is written
    with keep everything: a Bernoulli sample is all ones, a uniform one just below one, and the
    exponential one that a random choice is written with one. Noise is one number for a whole
    tensor, another one for each call: what is drawn for a unit would depend on how many there are,
    and on how they lie in memory. Whatever else is drawn, such as the spans that a speech model
    masks, is drawn from the same seed each time; the generators of PyTorch, NumPy and Python go on
    as if nothing had been drawn.
    """

    def __enter__(self) -> Self:
        """Seed the generators."""
        self._states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.default_generator.manual_seed(0)
        self._noise = torch.Generator().manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *args: object) -> None:
        """Give the generators their states back."""
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        state, numpy_state, python_state = self._states
        torch.set_rng_state(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace one call; see `torch.overrides.TorchFunctionMode`."""
        given = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else given["input"]
        if func in {Tensor.bernoulli_, Tensor.bernoulli, torch.bernoulli}:
            return args[0].fill_(1.0) if func is Tensor.bernoulli_ else torch.ones_like(args[0])
        if func is torch._grouped_mm:
            return grouped_product(*args, **given)
        if func in _SAMPLES:
            return self._even(func, args, given)
        if func is F.scaled_dot_product_attention:
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            given["dropout_p"] = 0.0
            if len(args) > 4:
                del given["dropout_p"]
        if func in {F.multi_head_attention_forward, F.rrelu}:
            given["training"] = False
        if func in _RECURRENT:
            args = _without_dropout(args)
        return func(*args, **given)

    def _even(self, func: Callable[..., Any], args: tuple[Any, ...], given: Values) -> Tensor:
        """Draw one number for all positions of a sample."""
        out: Tensor = func(*args, **given)
        if func in _POSITIVE:
            return out.fill_(1.0)
        if func in _UNIFORM:
            return out.fill_(_ALMOST_ONE) if out.is_floating_point() else out
        number = float(torch.randn((), generator=self._noise))
        if func in {torch.normal, Tensor.normal_}:
            own = args if func is torch.normal else args[1:]
            mean, std = (
                own[i] if len(own) > i else given.get(name, float(i))
                for i, name in enumerate(("mean", "std"))
            )
            return out.copy_(torch.as_tensor(mean + std * number))
        return out.fill_(number)


def _without_dropout(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tell recurrent layers that they are not training: has_biases is followed by their settings.

    Args:
        args: Arguments of `torch.lstm` or its like: ``..., has_biases, num_layers, dropout, train,
            ...``.

    Returns:
        The arguments with ``train`` off.
    """
    train = next(i for i, value in enumerate(args) if isinstance(value, bool)) + 3
    return (*args[:train], False, *args[train + 1 :])


_ALMOST_ONE = 1 - 2**-24
_RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
_UNIFORM = frozenset({torch.rand, torch.rand_like, Tensor.uniform_})
_POSITIVE = frozenset({Tensor.exponential_, Tensor.log_normal_})
_SAMPLES = _UNIFORM | _POSITIVE | {
    torch.randn, torch.randn_like, torch.normal, Tensor.normal_, Tensor.cauchy_,
}  # fmt: skip
_DROPOUTS = frozenset(
    {
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
        torch.dropout,
        torch.dropout_,
    }
)
