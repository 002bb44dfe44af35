"""The learning rate over a run: a linear warm-up, then a cosine down to 0.

Source of the cosine: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
ICLR 2017 (arXiv 1608.03983), equation 5, without restarts.
"""

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Compute the learning rate of one optimizer step.

    Args:
        step: Number of steps taken before this one, 0 to ``total_steps - 1``.
        peak: Highest learning rate.
        warmup_steps: Steps in which it rises; the first gets ``peak / warmup_steps``.
        total_steps: Steps of the run.

    Returns:
        The learning rate.

    Example:
        >>> [learning_rate(s, peak=1.0, warmup_steps=2, total_steps=6) for s in range(3)]
        [0.5, 1.0, 1.0]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2
