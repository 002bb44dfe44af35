"""What a benchmark prints about where it ran."""

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch


def describe(packages: Sequence[str] = ("torch", "torchvision")) -> str:
    """Return date, processor, threads and versions in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("secateur", *packages))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{time.strftime('%Y-%m-%d')}, {_processor()}, {torch.get_num_threads()} thread(s), "
        f"{device}, Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
