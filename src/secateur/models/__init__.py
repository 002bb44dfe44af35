"""Reference networks, and a door to the classification models of torchvision and timm."""

from secateur.models._build import available, build
from secateur.models._cifar_resnet import BasicBlock, CifarResNet
from secateur.models._cifar_vgg import CifarVGG
from secateur.models._digits_resnet import DigitsResNet
from secateur.models._entry import Entry, ModelShape
from secateur.models._lenet import LeNet5
from secateur.models._mlp import MLP
from secateur.models._scale import scaled
from secateur.models._shortcut import ZeroPadShortcut, projection_shortcut, zero_pad_shortcut

__all__ = [
    "MLP",
    "BasicBlock",
    "CifarResNet",
    "CifarVGG",
    "DigitsResNet",
    "Entry",
    "LeNet5",
    "ModelShape",
    "ZeroPadShortcut",
    "available",
    "build",
    "projection_shortcut",
    "scaled",
    "zero_pad_shortcut",
]
