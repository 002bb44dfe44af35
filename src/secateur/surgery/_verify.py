"""`verify`: try removals on a copy of a model and compare it with the masked original."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import MiswiredError, NothingRemovableError, UsageError
from secateur.structure import Decision, Live, Structure, map_tensors, trace, watched_memory
from secateur.surgery._copy import copy_of
from secateur.surgery._cut import cut_
from secateur.surgery._masked import LiveNorms, silence_
from secateur.surgery._precision import Precision, allowed_difference, name_of
from secateur.surgery._randomise import randomise_
from secateur.surgery._steady import Steady
from secateur.surgery._verification import Verification

Example = tuple[tuple[Any, ...], dict[str, Any]]


def verify(
    model: nn.Module,
    example_inputs: Any,
    *,
    fraction: float = 0.5,
    seed: int = 0,
    allow_inexact: bool = False,
    head_dims: bool = False,
) -> Verification:
    """Check on a copy in float64 that what is removed is exactly what was silenced.

    Constant parameters and the statistics of norms are randomised first, since zeros and ones hide
    mistakes. Then random units of every family are removed, then random layers, and after both the
    outputs are compared with those of the whole model with the same structures silenced, in
    evaluation and in training mode (without dropout). The model itself is not touched.

    A model may compute parts in float32 whatever its weights are, as language models do with their
    norms. That is seen while it runs, and only then may outputs differ by the rounding of float32.

    Args:
        model: The model.
        example_inputs: What it is called with: a tensor, a tuple of positional arguments or a dict
            of keyword ones.
        fraction: Part of each family's units, and of the layers, that is removed.
        seed: Seed of what is removed, and of the random values.
        allow_inexact: Whether units under a layer, group or RMS norm are removed, too. The masked
            model then computes such norms over what is left.
        head_dims: As in `trace`.

    Returns:
        What was removed, and the largest difference; ``print`` it.

    Raises:
        MiswiredError: The outputs differ, or the smaller model does not run.
        NothingRemovableError: There is nothing to remove.
        TraceError: The forward cannot be followed.
        UsageError: ``fraction`` is not between 0 and 1, or the model computes in half precision.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> verify(net, torch.randn(3, 8)).num_units
        2
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(
            f"verify got fraction={fraction}, expected a number between 0 and 1. "
            "Pass the part of each family to remove, such as fraction=0.5."
        )
    with _double_by_default():
        return _verified(
            model, example_inputs, fraction, seed, allow_inexact=allow_inexact, head_dims=head_dims
        )


@contextlib.contextmanager
def _double_by_default() -> Generator[None]:
    """Let tensors that a forward makes be as precise as the weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _verified(
    model: nn.Module, example_inputs: Any, fraction: float, seed: int, **options: bool
) -> Verification:
    generator = torch.Generator().manual_seed(seed)
    small = copy_of(model).double()
    randomise_(small, generator)
    structure = trace(small, _doubled(example_inputs), **options)
    masked = copy_of(small)
    examples = _examples(masked, structure, generator)
    live, difference = structure.everything(), 0.0
    precision = Precision()
    for decision in _decisions(structure, fraction, generator):
        live, _ = cut_(small, structure, live, decision)
        silence_(masked, structure, live)
        with precision:
            difference = max(difference, _compare(masked, small, structure, live, examples))
    bound = allowed_difference(precision.coarsest)
    if not difference <= bound:
        raise MiswiredError(
            f"The smaller {type(model).__name__} differs from the masked one by {difference:.1e} "
            f"of the largest output, expected at most {bound:.0e}. "
            "Please report the model, and do not remove anything from it until this is fixed."
        )
    gone = [int((~mask).sum()) for mask in live.units]
    macs = structure.cost.macs
    return Verification(
        num_families=sum(count > 0 for count in gone),
        num_units=sum(gone),
        num_layers=int((~live.layers).sum()),
        difference=difference,
        precision=name_of(precision.coarsest),
        macs_share=macs.value(live.counts, live.layers) / macs.value(),
    )


def _decisions(
    structure: Structure, fraction: float, generator: torch.Generator
) -> Iterator[Decision]:
    """Draw units of every family that can spare one, and then layers."""
    units = {}
    for number, family in enumerate(structure.families):
        spare = family.num_units - family.fewest
        wanted = min(max(round(fraction * family.num_units), 1), spare)
        if wanted > 0:
            units[number] = torch.randperm(family.num_units, generator=generator)[:wanted]
    wanted = max(round(fraction * structure.num_layers), 1)
    layers = torch.randperm(structure.num_layers, generator=generator)[:wanted].tolist()
    if not units and not layers:
        raise NothingRemovableError(
            "The model has no family with two units and no removable layer, so there is nothing to "
            "verify. Print secateur.trace(model, example_inputs) to see what is fixed, and why."
        )
    if units:
        yield Decision(units=units)
    if layers:
        yield Decision(layers=tuple(layers))


def _compare(
    masked: nn.Module, small: nn.Module, structure: Structure, live: Live, examples: list[Example]
) -> float:
    """Run both models in both modes and return the largest relative difference."""
    difference = 0.0
    for training, example in zip((False, True), examples, strict=True):
        with LiveNorms(masked, structure, live):
            expected = _run(masked, example, training=training)
        found = _run(small, example, training=training)
        if len(expected) != len(found):
            raise MiswiredError(
                f"The smaller model returns {len(found)} tensors, the masked one {len(expected)}. "
                "Expected the same number of both. Please report the model."
            )
        pairs = zip(expected, found, strict=True)
        difference = max([difference, *(_difference(a, b) for a, b in pairs)])
    return difference


def _examples(model: nn.Module, structure: Structure, generator: torch.Generator) -> list[Example]:
    """Return inputs for evaluation and for training.

    Args:
        model: The whole model.
        structure: What it is made of.
        generator: Source of noise.

    Returns:
        The example for both. Batch norm cannot train on a single value a channel; the second is
        then the example twice, once as it is and once turned around.

    Raises:
        ValueError: The model cannot be trained on the example for another reason.
    """
    example = map_tensors(lambda t: _varied(t, generator), structure.example)
    try:
        _run(model, example, training=True)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return [example, map_tensors(lambda t: torch.cat([t, t.flip(-1)]), example)]
    return [example, example]


def _run(model: nn.Module, example: Example, *, training: bool) -> list[Tensor]:
    """Call a model without chance, and without moving what it holds, such as running statistics.

    Args:
        model: The model.
        example: Its arguments, which it may overwrite: it gets copies.
        training: Mode.

    Returns:
        The tensors it returns.

    Raises:
        UsageError: It returns none.
    """
    args, kwargs = map_tensors(Tensor.clone, example)
    held = (*model.parameters(), *model.buffers())
    saved = [(tensor, tensor.detach().clone()) for tensor in held]
    # A scripted module lists its buffers in something else, which nothing is put in.
    tables = (module._buffers for module in model.modules() if type(module._buffers) is dict)
    listed = [(own, dict(own)) for own in tables]
    model.train(training)
    try:
        with torch.no_grad(), Steady(), watched_memory() as memory:
            output = model(*args, **kwargs)
    finally:
        for own, before in listed:
            own.update(before)
        for tensor, value in saved:
            tensor.data.copy_(value)
    found = memory.results(output)
    if not found:
        raise UsageError(
            f"The {type(model).__name__} returns a {type(output).__name__} without tensors, so "
            "there is nothing to compare. Verify a module that returns what it computes."
        )
    return found


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        raise MiswiredError(
            f"The smaller model returns shape {tuple(found.shape)}, the masked one "
            f"{tuple(expected.shape)}. Expected the same shape. Please report the model."
        )
    wanted, got = (t if t.is_complex() else t.double() for t in (expected, found))
    finite = wanted[wanted.isfinite()].abs()
    if wanted.numel() == 0:
        return 0.0
    if finite.numel() == 0:
        raise UsageError(
            "The outputs of the masked model are not finite, so nothing can be compared. "
            "Pass example inputs for which the model returns finite numbers."
        )
    same = (wanted == got) | (wanted.isnan() & got.isnan())
    difference = (wanted - got).abs().masked_fill(same, 0.0).nan_to_num(nan=math.inf).max()
    return float(difference / finite.max().clamp_min(torch.finfo(torch.float64).tiny))


def _doubled(example_inputs: Any) -> Any:
    return map_tensors(lambda t: t.double() if t.is_floating_point() else t, example_inputs)


def _varied(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a constant input, such as zeros, by noise: it would hide what happens in space."""
    if not tensor.is_floating_point() or bool((tensor != tensor.flatten()[0]).any()):
        return tensor
    noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    return noise.to(tensor.device)
