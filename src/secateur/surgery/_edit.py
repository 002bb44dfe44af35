"""What surgery did to a model: the record that `structure.json` stores and `load` replays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secateur.structure import AttributeValue, Stub


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Everything that separates a smaller model from the one that was built.

    Always cumulative: positions and names are those of the model before its first removal.

    Attributes:
        kept: Canonical tensor name to axis to the original positions that are left, ascending.
            Only axes that lost something are listed.
        stubs: Modules that were replaced.
        attributes: Module path to attribute name to new value, for modules that store sizes.
        attentions: Paths of `nn.MultiheadAttention` modules that became
            `secateur.nn.SlimMultiheadAttention` because they lost heads.
    """

    kept: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    stubs: tuple[Stub, ...] = ()
    attributes: Mapping[str, Mapping[str, AttributeValue]] = field(default_factory=dict)
    attentions: tuple[str, ...] = ()
