"""Mask rules by name, with their default settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secateur.errors import UsageError
from secateur.methods.mask_rules._magnitude import GlobalMagnitude, Magnitude
from secateur.methods.mask_rules._protocol import MaskRule
from secateur.methods.mask_rules._random import RandomWeights
from secateur.methods.mask_rules._sap import SAP

MASK_RULES: Mapping[str, Callable[[], MaskRule]] = {
    "global-magnitude": GlobalMagnitude,
    "magnitude": Magnitude,
    "random": RandomWeights,
    "sap": SAP,
}


def mask_rule_named(name: str) -> MaskRule:
    """Make a rule with its default settings.

    Args:
        name: One of ``MASK_RULES``.

    Returns:
        The rule.

    Raises:
        UsageError: There is no rule of this name.
    """
    if name not in MASK_RULES:
        raise UsageError(
            f"There is no mask rule {name!r}. Known are {', '.join(sorted(MASK_RULES))}; for any "
            "score of single weights make a secateur.methods.mask_rules.ByScore."
        )
    return MASK_RULES[name]()
