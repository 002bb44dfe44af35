"""What `verify` found out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A model whose removals were checked; that it exists means that they are exact.

    Attributes:
        num_families: Families of which units were removed.
        num_units: Units removed, of all families.
        num_layers: Layers removed.
        difference: Largest difference between masked and smaller model over all outputs, divided
            by the largest magnitude of that output.
        precision: Coarsest type that the model rounds to in its forward, such as ``"float64"``.
        macs_share: MACs of the smallest model, as a part of those of the whole.
    """

    num_families: int
    num_units: int
    num_layers: int
    difference: float
    precision: str
    macs_share: float

    def __str__(self) -> str:
        rounding = "" if self.precision == "float64" else f" (it computes in {self.precision})"
        return (
            f"exact: {self.num_units} units of {self.num_families} families and "
            f"{self.num_layers} layers removed ({self.macs_share:.0%} of the MACs left), largest "
            f"difference {self.difference:.1e} of the output{rounding}, in evaluation and "
            "training mode"
        )
