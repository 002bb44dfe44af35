"""Adding a removal to the record of the removals before it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from secateur.structure import AttributeValue, named_modules, named_tensors
from secateur.surgery._edit import Edit
from secateur.surgery._names import names_of
from secateur.surgery._plan import Plan


def compose(previous: Edit, plan: Plan, tensors: dict[str, Tensor], model: nn.Module) -> Edit:
    """Return one edit that does what an edit and a plan do one after the other.

    Args:
        previous: What separated the model from the one that was built.
        plan: What was done to it now.
        tensors: Its tensors by name before.
        model: The model afterwards.

    Returns:
        The edit; what it says about tensors and modules that are gone is left out.
    """
    names = names_of(tensors)
    left = names_of(named_tensors(model)) if plan.stubs else names
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, axes in previous.kept.items():
        kept.setdefault(names[id(tensors[name])][0], {}).update(axes)
    for name, slices in plan.slices.items():
        entry = kept.setdefault(names[id(tensors[name])][0], {})
        for axis, positions in slices.items():
            before = entry.get(axis)
            now = positions.tolist()
            entry[axis] = tuple(now if before is None else [before[i] for i in now])
    paths = named_modules(model)
    attributes: dict[str, Mapping[str, AttributeValue]] = dict(previous.attributes)
    for path, values in plan.attributes.items():
        attributes[path] = {**attributes.get(path, {}), **values}
    attentions = dict.fromkeys((*previous.attentions, *plan.attentions))
    return Edit(
        # A tied tensor may go on under another of its names when its first one is gone.
        kept={
            left[id(tensors[name])][0]: axes
            for name, axes in kept.items()
            if id(tensors[name]) in left
        },
        stubs=(*previous.stubs, *plan.stubs),
        attributes={path: values for path, values in attributes.items() if path in paths},
        attentions=tuple(path for path in attentions if path in paths),
    )
