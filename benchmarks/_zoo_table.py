"""Tables of what the zoo measured, for the screen and for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _machine import describe

COVERED = 0.8
Result = dict[str, Any]
Key = tuple[str, str]

_ABOUT = """\
Written by `python benchmarks/zoo.py --write-docs`; not by hand.

Every model is traced; a random 30 % of the units of every family and every second removable layer
are removed; the result runs, returns the same shapes, agrees with the masked original (evaluation
mode, float64 where memory allows), takes a backward step, and costs what the cost model says
(`torch.utils.flop_counter`). From torchvision these are all models for classification, segmentation
and video and the backbones of all detectors, from timm the smallest model of every module.

*Covered* is the share of the parameters outside embeddings that have a removable axis or lie in a
removable layer: by default, and with `allow_inexact=True`, which lets units go that share a
statistic, such as channels under a layer norm (a run of its own, with the same checks; the masked
reference computes the norms over what is left). Seconds are processor time of one thread for trace,
removal and proof check, in float64 as a rule. The last column is construction and one step of
Torch-Pruning by its defaults, and our trace and removal of as many units in the same process.
"""


def summary(records: Iterable[Result]) -> str:
    """Sum results up for the screen: figures, then what fails or is not covered, and why."""
    records = list(records)
    lines = figures(records)
    for record in records:
        name = f"{record['kind']} {record['source']} {record['model']}"
        if not record["ok"]:
            lines.append(f"FAILED {name} ({record['stage']}): {record['reason']}")
        if record.get("covered", 1.0) <= COVERED:
            reasons = "; ".join(f"{n:,} {m}" for n, m, _ in record["fixed"][:3])
            lines.append(f"LOW {record['covered']:.0%} {name}: {reasons}")
    return "\n".join(lines) or "nothing measured yet"


def figures(records: Iterable[Result]) -> list[str]:
    """Count what passes and what is covered, and state times."""
    by_kind: dict[str, dict[Key, Result]] = {"exact": {}, "inexact": {}, "peer": {}}
    for record in records:
        by_kind[record["kind"]][record["source"], record["model"]] = record
    lines = []
    for kind, title in (("exact", "by default"), ("inexact", "with `allow_inexact=True`")):
        own = list(by_kind[kind].values())
        if own:
            passed = sum(r["ok"] for r in own)
            covered = sum(r.get("covered", 0.0) > COVERED for r in own)
            lines.append(
                f"{title}, {passed} of {len(own)} models ({passed / len(own):.1%}) pass every "
                f"check, and {covered} ({covered / len(own):.1%}) are covered to more than "
                f"{COVERED:.0%}"
            )
    timed = sorted((_seconds(r), r["model"]) for r in by_kind["exact"].values() if _is_timed(r))
    if timed:
        middle, (slowest, name) = statistics.median(s for s, _ in timed), timed[-1]
        lines.append(f"trace and removal: median {middle:.2f} s, slowest {slowest:.1f} s ({name})")
    return lines + _peer_figures(by_kind["peer"])


def _is_timed(record: Result) -> bool:
    return "remove_seconds" in record


def _seconds(record: Result) -> float:
    return float(record["trace_seconds"] + record["remove_seconds"])


def _peer_figures(peers: dict[Key, Result]) -> list[str]:
    if not peers:
        return []
    done = sum(r["ok"] for r in peers.values())
    lines = [f"Torch-Pruning: {done} of {len(peers)} models prune and run"]
    both = [(r["own_seconds"], r["seconds"]) for r in peers.values() if r["ok"]]
    if both:
        mine, other = (statistics.median(column) for column in zip(*both, strict=True))
        ratio = statistics.median(a / b for a, b in both)
        lines.append(
            f"on the {len(both)} that both finish: median {mine:.2f} s against its {other:.2f} s; "
            f"median of the ratios {ratio:.2f}"
        )
    return lines


def write_docs(path: Path, records: Iterable[Result]) -> None:
    """Write the page that the documentation shows."""
    records = list(records)
    packages = ("torch", "torchvision", "timm", "transformers", "torch-pruning")
    lines = ["# The zoo", "", f"{describe(packages)}.", "", _ABOUT]
    lines += [f"* {line}" for line in figures(records)]
    for source in dict.fromkeys(r["source"] for r in records):
        lines += _section(source, [r for r in records if r["source"] == source])
    path.write_text("\n".join(lines) + "\n")


def _section(source: str, records: list[Result]) -> list[str]:
    by_kind = {
        kind: {r["model"]: r for r in records if r["kind"] == kind}
        for kind in ("exact", "inexact", "peer")
    }
    lines = [
        "",
        f"## {source}",
        "",
        "| family | model | units | families | layers | covered | inexact | trace s | removal s | "
        "proof s | difference | Torch-Pruning / own s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for record in sorted(by_kind["exact"].values(), key=lambda r: (r["family"], r["model"])):
        others = (by_kind[kind].get(record["model"]) for kind in ("inexact", "peer"))
        lines.append("| " + " | ".join(_cells(record, *others)) + " |")
    return lines + _open_cases(source, by_kind)


def _cells(record: Result, inexact: Result | None, peer: Result | None) -> list[str]:
    def shown(name: str, form: str) -> str:
        return format(record[name], form) if name in record else ""

    if peer is None:
        other = ""
    else:
        both = f"{peer.get('seconds', 0.0):.2f} / {peer.get('own_seconds', 0.0):.2f}"
        other = both if peer["ok"] else f"fails ({peer['stage']})"
    return [
        record["family"],
        record["model"],
        shown("units", ",d"),
        shown("families", "d"),
        shown("layers", "d"),
        shown("covered", ".0%"),
        f"{inexact['covered']:.0%}" if inexact and "covered" in inexact else "",
        shown("trace_seconds", ".2f"),
        shown("remove_seconds", ".2f"),
        shown("proof_seconds", ".2f"),
        shown("difference", ".0e") if record["ok"] else f"fails ({record['stage']})",
        other,
    ]


def _open_cases(source: str, by_kind: dict[str, dict[str, Result]]) -> list[str]:
    """Say of every model that fails or is covered too little, what is in the way."""
    lines = []
    for kind, title in (("exact", "default"), ("inexact", "allow_inexact")):
        for record in by_kind[kind].values():
            name = f"* {record['model']} ({title}):"
            if not record["ok"]:
                lines.append(f"{name} {record['stage']}: {_plain(record['reason'])}")
            elif record["covered"] <= COVERED:
                why = "; ".join(
                    f"{text} ({count:,} parameters)" for count, _, text in record["fixed"][:2]
                )
                lines.append(f"{name} {record['covered']:.0%} covered. {_plain(why)}")
    return ["", f"Open in {source}:", "", *lines] if lines else []


def _plain(text: str) -> str:
    """Leave out where this machine keeps its packages."""
    for mark in ("site-packages/", "dist-packages/"):
        while mark in text:
            before, _, after = text.partition(mark)
            text = before[: max(before.rfind(" "), before.rfind("(")) + 1] + after
    return text
