"""What measuring damage costs, in multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode

from secateur.gates import Ablation, Damage, DamageMeter


class SideWork:
    """Adds up the work of measurements.

    Measurements that ask for the same of the same model cost the same: torch counts the first one,
    which slows that one down, and the others are taken to be like it.

    Attributes:
        macs: Multiply-accumulates so far: half of the floating-point operations torch counts.
    """

    def __init__(self) -> None:
        self.macs = 0.0
        self._meter: DamageMeter | None = None
        self._known: dict[object, float] = {}

    def add(
        self,
        meter: DamageMeter,
        ablation: Ablation,
        num_samples: int,
        measure: Callable[[], Damage],
    ) -> Damage:
        """Make a measurement and add what it costs.

        Args:
            meter: Belongs to the model as it is now; every removal brings a new one.
            ablation: What is measured.
            num_samples: Number of samples in the batch.
            measure: Makes the measurement.

        Returns:
            What was measured.
        """
        if meter is not self._meter:
            self._meter, self._known = meter, {}
        key = (ablation.sampled, ablation.exact, ablation.off_VRU.shape[:2], num_samples)
        if key in self._known:
            damage = measure()
        else:
            with FlopCounterMode(display=False) as counter:
                damage = measure()
            self._known[key] = counter.get_total_flops() / 2
        self.macs += self._known[key]
        return damage
