"""Networks by name: the catalogue of reference networks, torchvision's and timm's."""

from torch import nn

from secateur.errors import UsageError
from secateur.models import _cifar_resnet, _cifar_vgg, _digits_resnet, _lenet, _mlp
from secateur.models._entry import Entry, ModelShape
from secateur.models._library import LIBRARIES, build_from_library, nearest

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for module in (_cifar_resnet, _cifar_vgg, _digits_resnet, _lenet, _mlp)
    for entry in module.ENTRIES
}


def build(
    name: str, num_classes: int, in_channels: int, image_size: int, width: float = 1.0
) -> nn.Module:
    """Build a classification network with random weights, drawn from torch's global generator.

    Args:
        name: a reference network (see `available`), or ``torchvision/NAME`` or ``timm/NAME``.
        num_classes: length of the output, at least 1.
        in_channels: channels of the images, at least 1.
        image_size: height and width of the images in pixels.
        width: factor on every hidden width of a reference network, > 0.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        UsageError: the name is unknown, its library is missing, a number is out of range, or the
            images are too
            small for the network.

    Example:
        >>> type(build("resnet20", num_classes=10, in_channels=3, image_size=32)).__name__
        'CifarResNet'
    """
    shape = ModelShape(
        num_classes=num_classes, in_channels=in_channels, image_size=image_size, width=width
    )
    _check(name, shape)
    package, slash, inner = name.partition("/")
    if slash and package in LIBRARIES:
        return build_from_library(LIBRARIES[package], inner, shape)
    if name not in ENTRIES:
        raise UsageError(
            f"There is no model {name!r}. {nearest(name, list(ENTRIES))} "
            "Models of other libraries are named torchvision/NAME or timm/NAME."
        )
    entry = ENTRIES[name]
    if image_size < entry.smallest_image:
        raise UsageError(
            f"Model {name!r} cannot process images of {image_size} pixels: it needs at least "
            f"{entry.smallest_image}. Choose larger images or another model."
        )
    return entry.factory(shape)


def available() -> dict[str, str]:
    """List the reference networks.

    Returns:
        One line of description per name, sorted by name.
    """
    return {name: ENTRIES[name].summary for name in sorted(ENTRIES)}


def _check(name: str, shape: ModelShape) -> None:
    for field in ("num_classes", "in_channels", "image_size", "width"):
        value = getattr(shape, field)
        smallest = "more than 0" if field == "width" else "at least 1"
        if not 0 < value < float("inf"):
            raise UsageError(
                f"Model {name!r} was asked for with {field}={value}, which must be {smallest}. "
                f"Set {field} to a positive number."
            )
