"""Weight initialisation of the reference networks.

Sources: He et al., "Delving Deep into Rectifiers", ICCV 2015 (arXiv 1502.01852), equation 10;
Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
AISTATS 2010, equation 16.
"""

from torch import nn


def initialise_he_(model: nn.Module) -> None:
    """Draw every weight from N(0, 2 / fan_in) and set every bias to zero, in place.

    Args:
        model: its convolutions and linear layers change; norms keep weight 1 and bias 0.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_glorot_(model: nn.Module) -> None:
    """Draw every weight uniformly, variance 2 / (fan_in + fan_out); biases to zero, in place.

    Args:
        model: its convolutions and linear layers change.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
