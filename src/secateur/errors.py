"""The errors secateur raises.

::

    SecateurError
    ├── TraceError (RuntimeError)          the structure of a model could not be found
    ├── NothingRemovableError (ValueError) a model without a single removable structure
    ├── SurgeryError (RuntimeError)        a removal was refused; the model is as it was
    │   └── MiswiredError                  the smaller model would compute something else
    ├── UsageError (ValueError)            a call, setting or config that cannot work
    └── StorageError (RuntimeError)        a file is missing, damaged, foreign or hostile
"""


class SecateurError(Exception):
    """Base of every error that secateur raises on purpose."""


class TraceError(SecateurError, RuntimeError):
    """The structure of a model could not be found."""


class NothingRemovableError(SecateurError, ValueError):
    """The model has no structure that could be removed."""


class SurgeryError(SecateurError, RuntimeError):
    """A removal was refused; the model is as it was before the call."""


class MiswiredError(SurgeryError):
    """The proof check found that the smaller model would compute something else."""


class UsageError(SecateurError, ValueError):
    """A call, a setting or a config that cannot work."""


class StorageError(SecateurError, RuntimeError):
    """A file is missing, damaged, foreign or hostile."""
