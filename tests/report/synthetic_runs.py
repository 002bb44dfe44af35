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
            "settings": {"price": 0.3, "compute_share": 1.0, "layer_share": 0.5, "target_macs": None},
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
    chance = random.Random(seed)
    opening = start(**more)
    macs0, params0 = opening["macs"], opening["params"]
    total, settle = epochs * STEPS_PER_EPOCH, round(0.7 * epochs) * STEPS_PER_EPOCH
    goal = {f["name"]: max(2, round(f["units"] * chance.uniform(0.3, 0.9))) for f in families()}
    doomed = {"layer2.1": int(0.45 * total), "layer3.2": int(0.6 * total)}
    left = {f["name"]: f["units"] for f in families()}
    live_layers = layers()
    events = [opening]
    share, params_share, seconds, training_macs = 1.0, 1.0, 0.0, 0.0

    def add(event: str, step: int, **fields: Any) -> None:
        fields = {"event": event, "step": step, "seconds": round(seconds, 3)} | fields
        events.append(fields)

    for step in range(1, total + 1):
        seconds += 0.02 + 0.05 * share
        training_macs += 3 * 32 * macs0 * share
        progress = max(0.0, (step - 4 * STEPS_PER_EPOCH) / (settle - 4 * STEPS_PER_EPOCH))
        searching = step < settle
        price = 0.3 if opening["method"]["settings"]["price"] else 0.5 * (1 - math.exp(-3 * progress))
        if step % (total // 100) == 0:
            pull = {
                name: min(1.0, max(0.0, (1.1 - 1.6 * progress) if step < at else 0.0))
                for name, at in doomed.items()
            }
            add(
                "step",
                step,
                loss=0.05 + 2.2 * math.exp(-step / 180) + 0.02 * chance.random(),
                lr=0.05 * (1 + math.cos(math.pi * step / total)),
                price=price,
                macs_share=share,
                expected_macs_share=share * (0.93 if 0 < progress and searching else 1.0),
                expected_params_share=params_share,
                theta={
                    name: _theta(goal[name] / u0, progress, chance) + [left[name]]
                    for name, u0 in ((f["name"], f["units"]) for f in families())
                }
                if searching
                else {},
                phi={name: pull.get(name, 1 - 0.1 * chance.random() * (progress > 0)) for name in live_layers}
                if searching
                else {},
            )
        if searching and progress > 0 and step % 40 == 0:
            units = {}
            for family in families():
                name, before = family["name"], family["units"]
                wanted = before - (before - goal[name]) * min(1.0, 1.15 * progress)
                gone = max(0, left[name] - round(wanted))
                if gone and chance.random() < 0.5:
                    units[name] = list(range(left[name] - gone, left[name]))
                    left[name] -= gone
            went = [name for name in live_layers if step >= doomed.get(name, total)]
            live_layers = [name for name in live_layers if name not in went]
            if units or went:
                kept = sum(left.values()) / sum(f["units"] for f in families())
                share = 0.03 + 0.97 * kept**1.6 * (1 - 0.09 * (9 - len(live_layers)))
                params_share = 0.04 + 0.96 * kept**1.4
                worth = {name: round(chance.uniform(-0.2, 0.85), 3) for name in units}
                worth |= {name: round(chance.uniform(0.2, 0.7), 3) for name in went}
                add(
                    "remove",
                    step,
                    units=units,
                    layers=went,
                    worth=worth,
                    price=price,
                    macs=round(macs0 * share),
                    params=round(params0 * params_share),
                    max_difference=chance.uniform(1e-7, 9e-7),
                )
        if step == settle:
            add(
                "settle",
                step,
                macs=round(macs0 * share),
                params=round(params0 * params_share),
                kept_units=dict(left),
                kept_layers=list(live_layers),
            )
        if step % STEPS_PER_EPOCH == 0:
            epoch = step // STEPS_PER_EPOCH
            add(
                "epoch",
                step,
                epoch=epoch,
                train_loss=0.05 + 2.2 * math.exp(-epoch / 4),
                train_accuracy=_accuracy(epoch, 0.99, chance),
                validation_loss=0.1 + 2.1 * math.exp(-epoch / 4),
                validation_accuracy=_accuracy(epoch, 0.976, chance),
                macs=round(macs0 * share),
                params=round(params0 * params_share),
                epoch_seconds=STEPS_PER_EPOCH * (0.02 + 0.05 * share),
                training_macs=training_macs,
            )
            if epoch == 6:
                add("calibration", step, factor={n: 1.0 + chance.random() for n in left}, layers={n: 0.1 for n in live_layers})
    add(
        "end",
        total,
        test_accuracy=0.9733,
        test_loss=0.112,
        macs=round(macs0 * share),
        params=round(params0 * params_share),
        train_seconds=seconds,
        latency={"1": {"before": 0.00214, "after": 0.00151}, "64": {"before": 0.0412, "after": 0.0174}},
        widths={f["name"]: [f["units"], left[f["name"]]] for f in families()},
        removed_layers=[name for name in layers() if name not in live_layers],
        training_macs=training_macs,
    )
    return events


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


def _theta(goal: float, progress: float, chance: random.Random) -> list[float]:
    """Quartiles of keep parameters of which 1 - goal of the units drift down to 0."""
    if progress == 0:
        return [1.0] * 5
    low = max(0.0, 1 - 2.2 * progress)
    first = max(low, min(1.0, 1 - (1 - goal) * 1.4 * progress))
    median = max(first, min(1.0, 1.05 - 0.25 * (1 - goal) * progress - 0.03 * chance.random()))
    return [round(v, 4) for v in (low, first, median, max(median, 0.99), 1.0)]
