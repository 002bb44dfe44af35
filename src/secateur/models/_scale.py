"""Widths of uniformly narrowed or widened networks."""


def scaled(channels: int, width: float) -> int:
    """Return ``channels * width`` rounded to the nearest whole number, never below 1.

    Args:
        channels: width of the published network, at least 1.
        width: factor, > 0.

    Returns:
        The width of the narrowed or widened network.

    Example:
        >>> scaled(64, 0.7)
        45
    """
    return max(1, round(channels * width))
