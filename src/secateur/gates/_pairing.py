"""What a weight times its gradient is, element by element, for real and for complex weights."""

from __future__ import annotations

from torch import Tensor


def pairing(weight: Tensor, gradient: Tensor) -> Tensor:
    """Multiply a weight by its gradient: how the loss moves where the element is scaled.

    Args:
        weight: Any tensor.
        gradient: Gradient of the loss, of the same shape. PyTorch's gradient of a complex number
            holds the derivatives by its real and by its imaginary part.

    Returns:
        A real tensor of that shape.
    """
    if weight.is_complex():
        return (weight.conj() * gradient).real
    return weight * gradient
