"""Random networks, written as source text: every promise is checked on each of them.

    python benchmarks/fuzz.py [--count N] [--seed S] [--processes P]

Each network is traced, cut and held against its masked original in float64 in both modes; MACs and
parameters are counted before and after; the smaller network is saved and loaded. Whatever goes
wrong is printed with the seed and the source of the smallest network that still shows it, so that
it can be made a test. The exit code is 1 if anything did.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch
from _machine import describe
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.properties.promises import Kept, check_promises
from tests.properties.written import architecture

Outcome = tuple[int, Kept | None, str, str]
"""Seed, what there was to check, what went wrong, and the source of the network that shows it."""


def attempt(seed: int, without: frozenset[int] = frozenset()) -> tuple[Kept | None, str]:
    """Check one network; return what there was to check, or what went wrong."""
    found = architecture(seed, without)
    try:
        return check_promises(found.build, found.example()), ""
    except Exception as error:  # noqa: BLE001 (whatever goes wrong is a finding)
        last = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"{type(error).__name__} ({Path(last.filename).name}:{last.lineno}): {error}"


def outcome(seed: int) -> Outcome:
    """Check one network and, where it fails, leave out as many of its blocks as possible."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kept, wrong = attempt(seed)
    if kept is not None:
        return seed, kept, "", ""
    without: frozenset[int] = frozenset()
    for block in range(architecture(seed).num_blocks):
        smaller = without | {block}
        if attempt(seed, smaller)[0] is None:
            without = smaller
    return seed, None, wrong, architecture(seed, without).source


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """Describe what was checked."""
    kept = [found for _, found, _, _ in outcomes if found is not None]
    wrong = Counter(message.partition(":")[0] for _, found, message, _ in outcomes if not found)
    lines = [
        f"{len(outcomes):,} networks in {seconds:.0f} s, {len(outcomes) - len(kept)} wrong",
        *(f"  {count} x {kind}" for kind, count in wrong.most_common()),
    ]
    if kept:
        share = statistics.mean(found.free_share for found in kept)
        units = statistics.mean(found.num_units for found in kept)
        layers = statistics.mean(found.num_layers for found in kept)
        nothing = sum(found.num_units + found.num_layers == 0 for found in kept)
        lines.append(
            f"a network has {units:.1f} removable units and {layers:.2f} removable layers, which "
            f"reach {share:.0%} of its parameters (means); in {nothing} nothing can go"
        )
    return "\n".join(lines)


def main() -> int:
    """Check many networks and print what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; others follow")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    console = Console()
    seeds = range(options.seed, options.seed + options.count)
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[wrong]} wrong"),
    )
    with (
        multiprocessing.get_context("spawn").Pool(options.processes) as pool,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("", total=options.count, wrong=0)
        for found in pool.imap(outcome, seeds, chunksize=4):
            outcomes.append(found)
            seed, kept, message, source = found
            if kept is None:
                console.print(f"\nseed {seed}: {message}\n\n{source}", markup=False, soft_wrap=True)
                sys.stdout.flush()
            progress.update(task, advance=1, wrong=sum(o[1] is None for o in outcomes))
    console.print(summary(outcomes, time.perf_counter() - start), highlight=False)
    console.print(describe(("torch",)))
    return int(any(kept is None for _, kept, _, _ in outcomes))


if __name__ == "__main__":
    sys.exit(main())
