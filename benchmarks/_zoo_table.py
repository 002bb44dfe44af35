"""Tables of what the zoo measured, for the screen and for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _machine import describe

COVERED = 0.8
Result = dict[str, Any]


def summary(records: Iterable[Result]) -> str:
    """Sum results up: what passes, what is covered, how long it takes, what fails and why."""
    records = list(records)
    ours = [r for r in records if r["kind"] == "exact"]
    if not ours:
        return "nothing measured yet"
    passed = [r for r in ours if r["ok"]]
    covered = [r for r in ours if r.get("covered", 0.0) > COVERED]
    lines = [
        f"{len(passed)} of {len(ours)} models trace, prune, run and agree "
        f"({len(passed) / len(ours):.1%})",
        f"{len(covered)} of {len(ours)} are covered to more than {COVERED:.0%} "
        f"({len(covered) / len(ours):.1%})",
    ]
    seconds = sorted((_seconds(r), r["model"]) for r in ours if "remove_seconds" in r)
    if seconds:
        middle = statistics.median(value for value, _ in seconds)
        slowest, name = seconds[-1]
        lines.append(
            f"trace and removal: median {middle:.2f} s, slowest {slowest:.1f} s ({name})"
        )
    peers = {(r["source"], r["model"]): r for r in records if r["kind"] == "peer"}
    lines += _peer_lines(ours, peers)
    for record in ours:
        if not record["ok"]:
            lines.append(
                f"FAILED {record['source']} {record['model']} ({record['stage']}): "
                f"{record['reason']}"
            )
    for record in ours:
        if "covered" in record and record["covered"] <= COVERED:
            reasons = "; ".join(f"{n:,} {m}" for n, m, _ in record["fixed"][:3])
            lines.append(
                f"LOW {record['covered']:.0%} {record['source']} {record['model']}: {reasons}"
            )
    return "\n".join(lines)


def _seconds(record: Result) -> float:
    return float(record["trace_seconds"] + record["remove_seconds"])


def _peer_lines(ours: list[Result], peers: dict[tuple[str, str], Result]) -> list[str]:
    if not peers:
        return []
    done = [r for r in peers.values() if r["ok"]]
    both = [
        (_seconds(r), peers[r["source"], r["model"]]["seconds"])
        for r in ours
        if "remove_seconds" in r and peers.get((r["source"], r["model"]), {}).get("ok")
    ]
    lines = [f"Torch-Pruning: {len(done)} of {len(peers)} models prune and run"]
    if both:
        mine = statistics.median(a for a, _ in both)
        other = statistics.median(b for _, b in both)
        ratio = statistics.median(a / b for a, b in both)
        lines.append(
            f"on the {len(both)} that it finishes: median {mine:.2f} s against {other:.2f} s; "
            f"median of the ratios {ratio:.2f}"
        )
    return lines


def write_docs(path: Path, records: Iterable[Result]) -> None:
    """Write the page that the documentation shows."""
    records = list(records)
    ours = [r for r in records if r["kind"] == "exact"]
    peers = {(r["source"], r["model"]): r for r in records if r["kind"] == "peer"}
    head, *_ = summary(records).split("\nFAILED")
    head = head.split("\nLOW")[0]
    lines = [
        "# The zoo",
        "",
        "Written by `python benchmarks/zoo.py --write-docs`; not by hand.",
        "",
        describe(("torch", "torchvision", "timm", "transformers", "torch-pruning")) + ".",
        "",
        "Every model: traced, a random 30 % of the units of every family and every second removable",
        "layer removed, run (same shapes), compared with the masked original (evaluation mode,",
        "float64 where memory allows), one backward step, cost model against a count. *Covered* is",
        "the share of parameters outside embeddings with a removable axis, or in a removable layer.",
        "",
        *(f"* {line}" for line in head.splitlines()),
        "",
    ]
    for source in dict.fromkeys(r["source"] for r in ours):
        lines += _section(source, [r for r in ours if r["source"] == source], peers)
    path.write_text("\n".join(lines) + "\n")


def _section(source: str, ours: list[Result], peers: dict[tuple[str, str], Result]) -> list[str]:
    lines = [
        f"## {source}",
        "",
        "| family | model | units | families | layers | covered | trace s | removal s | proof s | "
        "difference | Torch-Pruning s | |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for record in sorted(ours, key=lambda r: (r["family"], r["model"])):
        peer = peers.get((source, record["model"]))
        lines.append("| " + " | ".join(_cells(record, peer)) + " |")
    open_cases = [r for r in ours if not r["ok"] or r.get("covered", 0.0) <= COVERED]
    if open_cases:
        lines += ["", f"Open in {source}:", ""]
    for record in open_cases:
        why = "; ".join(f"{text} ({count:,} parameters)" for count, _, text in record.get("fixed", [])[:2])
        failed = "" if record["ok"] else f"{record['stage']}: {record['reason']} "
        lines.append(f"* {record['model']}: {failed}{_plain(why)}")
    return [*lines, ""]


def _cells(record: Result, peer: Result | None) -> list[str]:
    def shown(name: str, form: str) -> str:
        return format(record[name], form) if name in record else ""

    if peer is None:
        other = ""
    else:
        other = f"{peer['seconds']:.2f}" if peer["ok"] else f"fails ({peer['stage']})"
    return [
        record["family"],
        record["model"],
        shown("units", ",d"),
        shown("families", "d"),
        shown("layers", "d"),
        shown("covered", ".0%"),
        shown("trace_seconds", ".2f"),
        shown("remove_seconds", ".2f"),
        shown("proof_seconds", ".2f"),
        shown("difference", ".0e"),
        other,
        "" if record["ok"] else f"fails ({record['stage']})",
    ]


def _plain(text: str) -> str:
    """Leave out where this machine keeps its packages."""
    for mark in ("site-packages/", "dist-packages/"):
        while mark in text:
            before, _, after = text.partition(mark)
            text = before[: max(before.rfind(" "), before.rfind("(")) + 1] + after
    return text
