"""Trace, shrink and check every model of the zoo: torchvision, timm and transformers.

    python benchmarks/zoo.py [--source timm] [--only 'resnet*'] [--peer] [--write-docs]

Every model runs in a process of its own with a limit on time and memory. Results go to a file of
JSON lines; what is in it is not run again. Remove lines (or the file) to measure anew.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import resource
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from _zoo_measure import Record, measure
from _zoo_models import Entry, entries
from _zoo_peer import measure_peer
from _zoo_table import summary, write_docs

GIB = 2**30


def main() -> int:
    """Run what is missing and print the table."""
    options = _options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = read(options.out)
    chosen = [
        entry
        for entry in entries(options.source, options.out.with_name("zoo-smallest.json"))
        if not options.only or any(fnmatch.fnmatch(entry.name, p) for p in options.only)
    ]
    kinds = ["exact", "inexact", *(["peer"] if options.peer else [])]
    waiting = [
        (entry, kind)
        for kind in options.kinds or kinds
        for entry in chosen
        if options.again or (kind, entry.source, entry.name) not in known
    ]
    if options.list:
        print("\n".join(f"{entry.source} {entry.family} {entry.name}" for entry in chosen))
        return 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run_all(waiting, options)
    records = list(read(options.out).values())
    names = {(entry.source, entry.name) for entry in chosen}
    print(summary([r for r in records if (r["source"], r["model"]) in names]))
    if options.write_docs:
        write_docs(Path(__file__).parents[1] / "docs" / "zoo.md", records)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=["torchvision", "timm", "transformers"])
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="names, with wildcards")
    parser.add_argument("--jobs", type=int, default=1, help="models at the same time")
    parser.add_argument("--peer", action="store_true", help="run Torch-Pruning on them, too")
    parser.add_argument("--again", action="store_true", help="run models that have a result, too")
    parser.add_argument("--kinds", nargs="+", choices=["exact", "inexact", "peer"])
    parser.add_argument("--seconds", type=float, default=120.0, help="limit for one model")
    parser.add_argument("--memory", type=float, default=10.0, help="limit for one model, in GiB")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo/results.jsonl"))
    parser.add_argument("--list", action="store_true", help="name the models and stop")
    parser.add_argument("--write-docs", action="store_true", help="write docs/zoo.md")
    return parser.parse_args()


def read(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Read results; of several for one model the last counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {(r["kind"], r["source"], r["model"]): r for r in records}


def run_all(waiting: list[tuple[Entry, str]], options: argparse.Namespace) -> None:
    """Run models in processes of their own, a few at a time, and append what comes back."""
    context = multiprocessing.get_context("fork")
    running: dict[Connection, tuple[BaseProcess, Entry, str, float]] = {}
    queue = list(reversed(waiting))
    while queue or running:
        while queue and len(running) < options.jobs:
            entry, kind = queue.pop()
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(there, entry, kind, options))
            process.start()
            there.close()
            running[here] = process, entry, kind, time.monotonic() + options.seconds
        wait(list(running), timeout=0.5)
        for connection, (process, entry, kind, deadline) in list(running.items()):
            result = _result(connection, process, deadline)
            if result is not None:
                del running[connection]
                _note(options, entry, kind, result)


def _result(connection: Connection, process: BaseProcess, deadline: float) -> dict[str, Any] | None:
    """What a process sent, how it died, or None while it works."""
    late = time.monotonic() > deadline
    if not connection.poll() and process.is_alive() and not late:
        return None
    try:
        result: dict[str, Any] = connection.recv() if connection.poll() else {}
    except EOFError:
        result = {}
    if not result:
        reason = "ran out of time" if late else "its process died (out of memory?)"
        result = {"ok": False, "stage": "?", "reason": reason}
    process.kill() if late else None
    process.join()
    connection.close()
    return result


def _note(options: argparse.Namespace, entry: Entry, kind: str, result: dict[str, Any]) -> None:
    record = {"kind": kind, "source": entry.source, "family": entry.family, "model": entry.name}
    with options.out.open("a") as stream:
        stream.write(json.dumps(record | result) + "\n")
    verdict = "ok" if result["ok"] else f"{result['stage']}: {result['reason']}"
    covered = f" {result['covered']:.0%}" if "covered" in result else ""
    line = f"{kind} {entry.source} {entry.name}{covered} {verdict}"
    print(line[:240], file=sys.stderr, flush=True)


def _child(there: Connection, entry: Entry, kind: str, options: argparse.Namespace) -> None:
    """Measure one model and send the result."""
    limit = int(options.memory * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    record = Record()
    result: dict[str, Any] = {"ok": True}
    start = time.perf_counter()
    try:
        if kind == "peer":
            measure_peer(entry.build, record)
        else:
            measure(entry.build, record, options.memory * GIB / 2, kind == "inexact")
    except Exception as error:  # noqa: BLE001 - whatever a model raises is a result
        where = traceback.extract_tb(error.__traceback__)[-1]
        result = {
            "ok": False,
            "reason": f"{type(error).__name__}: {str(error)[:600]}",
            "where": f"{where.filename}:{where.lineno}",
        }
    total = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    there.send({**result, "stage": record.stage, **record.values, "total": total, "peak_gib": peak})
    there.close()


if __name__ == "__main__":
    sys.exit(main())
