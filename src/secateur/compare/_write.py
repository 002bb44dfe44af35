"""Writes a comparison down: a table for programs, everything as JSON, and the page."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

from secateur.compare._comparison import Comparison
from secateur.compare._config import write_compare_config
from secateur.compare._page import render
from secateur.errors import UsageError
from secateur.report.kit import write_beside

CONFIG, CSV, JSON, PAGE = "config.toml", "comparison.csv", "comparison.json", "comparison.html"


def check_folder(out: Path) -> None:
    """Refuse a folder that holds something else than a comparison.

    Args:
        out: Folder a comparison is to be written to.

    Raises:
        UsageError: It has a config, but no figures of a comparison.
    """
    if (out / CONFIG).exists() and not (out / JSON).exists():
        raise UsageError(
            f"{out} holds {CONFIG} of something else, such as a run, which a comparison would "
            "overwrite. Expected a new folder or that of a comparison: name another with --out."
        )


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write ``comparison.csv``, ``comparison.json``, ``comparison.html`` and ``config.toml``.

    Args:
        comparison: The figures.
        out: Folder of the comparison.

    Raises:
        StorageError: A file cannot be written.
    """
    config = write_compare_config(comparison.config)
    write_beside(out / JSON, _document(comparison))
    write_beside(out / CONFIG, config)
    write_beside(out / CSV, _table(comparison))
    write_beside(out / PAGE, render(comparison, name=out.resolve().name, config=config))


def _table(comparison: Comparison) -> str:
    """Write one line a finished cell."""
    lines = []
    for cell, result in comparison.finished:
        bill = result.total
        line: dict[str, object] = {
            "method": cell.method,
            "recipe": cell.recipe.recipe,
            "budget": "" if cell.budget is None else cell.budget,
            "seed": cell.seed,
            "test_accuracy": result.test_accuracy,
            "macs": result.macs,
            "macs_share": result.macs_share,
            "params": result.params,
            "params_share": result.params_share,
            "training_macs": bill.macs,
            "training_seconds": bill.seconds,
        }
        for size, seconds in result.latency.items():
            line[f"latency_seconds_batch_{size}"] = seconds.own
            line[f"dense_latency_seconds_batch_{size}"] = seconds.dense
        lines.append(line)
    stream = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _document(comparison: Comparison) -> str:
    content = {
        "config": comparison.config.model_dump(mode="json", exclude_none=True),
        "rows": [dataclasses.asdict(row) for row in comparison.rows],
        "cells": [
            {
                "method": cell.method,
                "budget": cell.budget,
                "seed": cell.seed,
                "key": cell.key,
                "result": None if result is None else result.model_dump(mode="json"),
            }
            for cell, result in comparison.cells
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
