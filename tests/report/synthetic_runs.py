"""Plausible run folders, made up without training anything: the same call writes the same run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

STEPS_PER_EPOCH = 50
BLOCKS = (("layer1", 16, 3), ("layer2", 32, 3), ("layer3", 64, 3))
CONFIG = """\
# What was trained, and how.
[model]
name = "resnet20"

[data]
name = "digits"
batch_size = 32

[method]
name = "complexity-aware"
price = 0.3
"""
Record = dict[str, Any]


def families() -> list[Record]:
    """The families of a small residual net: inner channels of each block, and three streams."""
    found = [{"name": "conv1", "kind": "channels", "units": 16}]
    for stage, width, blocks in BLOCKS:
        if stage != "layer1":
            found.append({"name": f"{stage}.0.downsample", "kind": "channels", "units": width})
        found += [
            {"name": f"{stage}.{block}.conv1", "kind": "channels", "units": width}
            for block in range(blocks)
        ]
    return found


def layers() -> list[str]:
    """The removable residual branches."""
    return [f"{stage}.{block}" for stage, _, blocks in BLOCKS for block in range(blocks)]


def start(model: str = "resnet20", **more: Any) -> Record:
    """The first event."""
    return {
        "event": "start",
        "step": 0,
        "seconds": 0.0,
        "model": model,
        "data": "digits",
        "seed": 0,
        "method": {
            "name": "complexity-aware",
            "settings": {
                "price": 0.3,
                "compute_share": 1.0,
                "layer_share": 0.5,
                "target_macs": None,
            },
        },
        "total_steps": 24 * STEPS_PER_EPOCH,
        "macs": 41_230_592,
        "params": 272_474,
        "families": families(),
        "layers": layers(),
        "machine": {"cpu": "2 cores", "device": "cpu", "threads": 2},
        "versions": {"secateur": "0.1.0", "torch": "2.11.0", "python": "3.11.2"},
    } | more


def search_events(epochs: int = 24, seed: int = 0, **more: Any) -> list[Record]:
    """Events of a run that loses units from epoch 4 on, two layers, and settles at 70 %."""
    return _Search(epochs, seed, start(**more)).events


class _Search:
    """A run that is played through once, without any training."""

    def __init__(self, epochs: int, seed: int, opening: Record) -> None:
        self.chance = random.Random(seed)
        self.opening, self.events = opening, [opening]
        self.total = epochs * STEPS_PER_EPOCH
        self.settle = round(0.7 * epochs) * STEPS_PER_EPOCH
        self.before = {family["name"]: family["units"] for family in families()}
        self.left = dict(self.before)
        self.goal = {
            n: max(2, round(u * self.chance.uniform(0.3, 0.9))) for n, u in self.left.items()
        }
        self.doomed = {"layer2.1": int(0.45 * self.total), "layer3.2": int(0.6 * self.total)}
        self.layers = layers()
        self.macs_share = self.params_share = 1.0
        self.seconds = self.training_macs = self.progress = 0.0
        for step in range(1, self.total + 1):
            self.take(step)
        self.end()

    def add(self, event: str, step: int, **fields: Any) -> None:
        self.events.append(
            {"event": event, "step": step, "seconds": round(self.seconds, 3)} | fields
        )

    def size(self) -> Record:
        return {
            "macs": round(self.opening["macs"] * self.macs_share),
            "params": round(self.opening["params"] * self.params_share),
        }

    def price(self) -> float:
        given: float | None = self.opening["method"]["settings"]["price"]
        return given if given is not None else 0.5 * (1 - math.exp(-3 * self.progress))

    def take(self, step: int) -> None:
        self.seconds += 0.02 + 0.05 * self.macs_share
        self.training_macs += 3 * 32 * self.opening["macs"] * self.macs_share
        first = 4 * STEPS_PER_EPOCH
        self.progress = min(1.0, max(0.0, (step - first) / (self.settle - first)))
        if step % (self.total // 100) == 0:
            self.step(step)
        if 0 < self.progress < 1 and step % 40 == 0:
            self.remove(step)
        if step == self.settle:
            kept = {"kept_units": dict(self.left), "kept_layers": list(self.layers)}
            self.add("settle", step, **self.size(), **kept)
        if step % STEPS_PER_EPOCH == 0:
            self.epoch(step)

    def step(self, step: int) -> None:
        searching = step < self.settle
        shade = 0.93 if searching and self.progress > 0 else 1.0
        self.add(
            "step",
            step,
            loss=0.05 + 2.2 * math.exp(-step / 180) + 0.02 * self.chance.random(),
            lr=0.05 * (1 + math.cos(math.pi * step / self.total)),
            price=self.price(),
            macs_share=self.macs_share,
            expected_macs_share=self.macs_share * shade,
            expected_params_share=self.params_share * shade,
            theta={name: self.theta(name) for name in self.left} if searching else {},
            phi={name: self.phi(name, step) for name in self.layers} if searching else {},
        )

    def theta(self, name: str) -> list[float]:
        """Quartiles of keep parameters of which some keep drifting down to 0 in turn."""
        if self.progress == 0:
            return [1.0, 1.0, 1.0, 1.0, 1.0, self.left[name]]
        surplus = (self.left[name] - self.goal[name]) / self.before[name]
        wave = 0.5 + 0.5 * math.sin(9 * self.progress + self.before[name] + 3 * surplus)
        low = max(0.0, 1 - 5 * self.progress) if surplus > 0 else 0.6 + 0.3 * wave
        first = max(low, 1 - 1.1 * surplus - 0.06 * wave - 0.02 * self.chance.random())
        median = max(first, 1 - 0.25 * surplus - 0.03 * self.chance.random())
        return [
            *(round(v, 4) for v in (low, first, median, max(median, 0.995))),
            1.0,
            self.left[name],
        ]

    def phi(self, name: str, step: int) -> float:
        at = self.doomed.get(name)
        if at is not None:
            return min(1.0, max(0.0, 1 - 6 * (step - 0.75 * at) / at))
        dip = 0.35 if name.endswith("1") else 0.08
        return 1 - dip * (self.progress > 0) * (0.5 + 0.5 * math.sin(step / 60 + len(self.layers)))

    def remove(self, step: int) -> None:
        units = {}
        for name, before in self.before.items():
            wanted = round(before - (before - self.goal[name]) * min(1.0, 1.15 * self.progress))
            if wanted < self.left[name] and self.chance.random() < 0.5:
                units[name] = list(range(wanted, self.left[name]))
                self.left[name] = wanted
        went = [name for name in self.layers if step >= self.doomed.get(name, self.total)]
        self.layers = [name for name in self.layers if name not in went]
        kept = sum(self.left.values()) / sum(self.before.values())
        self.macs_share = 0.03 + 0.97 * kept**1.6 * (1 - 0.09 * (9 - len(self.layers)))
        self.params_share = 0.04 + 0.96 * kept**1.4 * (1 - 0.07 * (9 - len(self.layers)))
        worth = {name: round(self.chance.uniform(-0.2, 0.85), 3) for name in units}
        worth |= {name: round(self.chance.uniform(0.2, 0.7), 3) for name in went}
        self.add(
            "remove",
            step,
            units=units,
            layers=went,
            worth=worth,
            price=self.price(),
            max_difference=self.chance.uniform(1e-7, 9e-7),
            **self.size(),
        )

    def epoch(self, step: int) -> None:
        epoch = step // STEPS_PER_EPOCH
        self.add(
            "epoch",
            step,
            epoch=epoch,
            train_loss=0.05 + 2.2 * math.exp(-epoch / 4),
            train_accuracy=_accuracy(epoch, 0.99, self.chance),
            validation_loss=0.1 + 2.1 * math.exp(-epoch / 4),
            validation_accuracy=_accuracy(epoch, 0.976, self.chance),
            epoch_seconds=STEPS_PER_EPOCH * (0.02 + 0.05 * self.macs_share),
            training_macs=self.training_macs,
            **self.size(),
        )
        if epoch == 6:
            factor = {name: round(1 + self.chance.random(), 3) for name in self.left}
            self.add("calibration", step, factor=factor, layers=dict.fromkeys(self.layers, 0.1))

    def end(self) -> None:
        self.add(
            "end",
            self.total,
            test_accuracy=0.9733,
            test_loss=0.112,
            train_seconds=self.seconds,
            latency={
                "1": {"before": 0.00214, "after": 0.00151},
                "64": {"before": 0.0412, "after": 0.0174},
            },
            widths={name: [self.before[name], left] for name, left in self.left.items()},
            removed_layers=[name for name in layers() if name not in self.layers],
            training_macs=self.training_macs,
            **self.size(),
        )


def dense_events(epochs: int = 24, seed: int = 1, **more: Any) -> list[Record]:
    """Events of a run that trained the same network as it is."""
    chance = random.Random(seed)
    opening = start(**({"method": None, "families": [], "layers": []} | more))
    macs, params = opening["macs"], opening["params"]
    events = [opening]
    for epoch in range(1, epochs + 1):
        events.append(
            {
                "event": "epoch",
                "step": epoch * STEPS_PER_EPOCH,
                "seconds": epoch * STEPS_PER_EPOCH * 0.07,
                "epoch": epoch,
                "train_accuracy": _accuracy(epoch, 0.995, chance),
                "validation_accuracy": _accuracy(epoch, 0.98, chance),
                "macs": macs,
                "params": params,
                "epoch_seconds": STEPS_PER_EPOCH * 0.07,
                "training_macs": 3.0 * 32 * macs * epoch * STEPS_PER_EPOCH,
            }
        )
    events.append(
        {
            "event": "end",
            "step": epochs * STEPS_PER_EPOCH,
            "seconds": epochs * STEPS_PER_EPOCH * 0.07,
            "test_accuracy": 0.9778,
            "macs": macs,
            "params": params,
            "train_seconds": epochs * STEPS_PER_EPOCH * 0.07,
            "training_macs": 3.0 * 32 * macs * epochs * STEPS_PER_EPOCH,
        }
    )
    return events


def write_run(folder: Path, events: list[Record], config: str = CONFIG) -> Path:
    """Write a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def _accuracy(epoch: int, best: float, chance: random.Random) -> float:
    return best - 0.85 * math.exp(-epoch / 2.2) - 0.008 * chance.random()
