"""What a test has to leave as it found it: a snapshot that can be compared and put back."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as nn_module
from torch.optim import optimizer as nn_optimizer

ROOT = Path(__file__).resolve().parent.parent

# Set by libraries at their first import, whichever test that happens to be, and by pytest itself.
FOREIGN_VARIABLES = ("PYTEST_", "KMP_", "TORCHINDUCTOR_", "TRITON_")

# Caches that tools may write at any time.
CACHES = (".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".import_linter_cache")

# How long a thread that is about to end may take, in seconds.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """The state of the process that tests share.

    Attributes:
        settings: What has to be equal afterwards, by the name used in the complaint.
        variables: Environment variables.
        threads: Threads that run.
        files: What lies in the working directory and in the root of the repository.
        generators: States of the random generators of Python, numpy and torch.
    """

    settings: dict[str, Any]
    variables: dict[str, str]
    threads: frozenset[threading.Thread]
    files: frozenset[Path]
    generators: tuple[Any, Any, torch.Tensor]

    @classmethod
    def take(cls) -> Snapshot:
        """Look at the process as it is now."""
        return cls(
            settings=_settings(),
            variables=_variables(),
            threads=frozenset(threading.enumerate()),
            files=_files(),
            generators=(random.getstate(), np.random.get_state(), torch.get_rng_state()),  # noqa: NPY002
        )

    def complaints(self) -> list[str]:
        """Say what is different now, one sentence each; the random generators may have moved."""
        found = [
            f"{name} was {before!r} and is {_settings()[name]!r}"
            for name, before in self.settings.items()
            if _settings()[name] != before
        ]
        now = _variables()
        found += [
            f"environment variable {name} was {self.variables.get(name)!r} and is {now.get(name)!r}"
            for name in sorted(self.variables.keys() | now.keys())
            if self.variables.get(name) != now.get(name)
        ]
        found += [f"thread {thread.name!r} still runs" for thread in self._new_threads()]
        found += [f"file {path.name} was left behind" for path in sorted(_files() - self.files)]
        return found

    def restore(self) -> None:
        """Put back what can be put back, so that the next test is not blamed."""
        python, numpy, torch_state = self.generators
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        torch.set_default_dtype(self.settings["default dtype"])
        torch.set_num_threads(self.settings["number of torch threads"])
        torch.set_grad_enabled(self.settings["gradient mode"])
        torch.use_deterministic_algorithms(self.settings["deterministic algorithms"])
        torch.set_float32_matmul_precision(self.settings["float32 matmul precision"])
        os.chdir(self.settings["working directory"])
        for name in _variables().keys() - self.variables.keys():
            del os.environ[name]
        os.environ.update(self.variables)

    def _new_threads(self) -> list[threading.Thread]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            new = [t for t in threading.enumerate() if t not in self.threads and t.is_alive()]
            # tqdm starts one monitor for the whole process and never ends it.
            new = [t for t in new if type(t).__name__ != "TMonitor"]
            if not new or time.monotonic() > deadline:
                return new
            time.sleep(0.01)


def _settings() -> dict[str, Any]:
    hooks = {
        f"{owner.__name__}.{name}": len(registry)
        for owner in (nn_module, nn_optimizer)
        for name, registry in vars(owner).items()
        if name.startswith("_global_") and name.endswith("_hooks")
    }
    return hooks | {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of torch threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch function modes": torch._C._len_torch_function_stack(),
        "torch dispatch modes": torch._C._len_torch_dispatch_stack(),
        "working directory": str(Path.cwd()),
    }


def _variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_VARIABLES)}


def _files() -> frozenset[Path]:
    folders = {ROOT, Path.cwd()}
    return frozenset(p for folder in folders for p in folder.iterdir() if p.name not in CACHES)
