"""Adding a removal to the record of the removals before it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from secateur.structure import AttributeValue, named_modules
from secateur.surgery._edit import Edit
from secateur.surgery._names import names_of
from secateur.surgery._plan import Plan


def compose(
    previous: Edit,
    plan: Plan,
    tensors: dict[str, Tensor],
    left: dict[str, Tensor],
    model: nn.Module,
) -> Edit:
    """Return one edit that does what an edit and a plan do one after the other.

    Args:
        previous: What separated the model from the one that was built.
        plan: What was done to it now.
        tensors: Its tensors by name before.
        left: Its tensors by name afterwards.
        model: The model afterwards.

    Returns:
        The edit; what it says about tensors and modules that are gone is left out.
    """
    names = names_of(tensors)
    names_left = names if left is tensors else names_of(left)
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, axes in previous.kept.items():
        kept.setdefault(names[id(tensors[name])][0], {}).update(axes)
    listed: dict[int, tuple[int, ...]] = {}  # axes with the same units share their positions
    for name, slices in plan.slices.items():
        entry = kept.setdefault(names[id(tensors[name])][0], {})
        for axis, positions in slices.items():
            before = entry.get(axis)
            if id(positions) not in listed:
                listed[id(positions)] = tuple(positions.tolist())
            now = listed[id(positions)]
            entry[axis] = now if before is None else tuple(before[i] for i in now)
    paths = named_modules(model)
    attributes: dict[str, Mapping[str, AttributeValue]] = dict(previous.attributes)
    for path, values in plan.attributes.items():
        attributes[path] = {**attributes.get(path, {}), **values}
    attentions = dict.fromkeys((*previous.attentions, *plan.attentions))
    return Edit(
        # A tied tensor may go on under another of its names when its first one is gone.
        kept={
            names_left[id(tensors[name])][0]: axes
            for name, axes in kept.items()
            if id(tensors[name]) in names_left
        },
        stubs=(*previous.stubs, *plan.stubs),
        attributes={path: values for path, values in attributes.items() if path in paths},
        attentions=tuple(path for path in attentions if path in paths),
    )
