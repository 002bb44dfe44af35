"""Networks that find their own size while they train.

One line, `attach`, added to a training loop finds the filters, neurons, heads and whole layers that
do not earn their cost, removes them while training runs, and leaves an ordinary smaller module.
"""

from secateur import errors
from secateur._version import __version__
from secateur.errors import SecateurError
from secateur.methods import AOFP, ComplexityAware, Pruned, ResRep, prune
from secateur.storage import export, load, save
from secateur.structure import Structure, trace
from secateur.surgery import Verification, redesign, verify, widen
from secateur.training import attach, iterate

__all__ = [
    "AOFP",
    "ComplexityAware",
    "Pruned",
    "ResRep",
    "SecateurError",
    "Structure",
    "Verification",
    "__version__",
    "attach",
    "errors",
    "export",
    "iterate",
    "load",
    "prune",
    "redesign",
    "save",
    "trace",
    "verify",
    "widen",
]
