"""Numbers and names in the form in which a person reads them."""

from __future__ import annotations

import html
import math
import re

UNKNOWN = "\N{EN DASH}"
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
NBSP = "\N{NO-BREAK SPACE}"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_MINUTE, _HOUR = 60, 3600


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share as a percentage: 0.4162 is ``41.6 %``."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def points(share: float, other: float) -> str:
    """Write how two shares differ, as they are shown: 0.973 and 0.978 are ``−0.5 points``."""
    # The difference of the rounded figures, since a reader subtracts what stands on the page.
    rounded = round(round(100 * share, 1) - round(100 * other, 1), 1)
    if rounded == 0:
        return "no difference"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.1f} points"


def count(number: float | None) -> str:
    """Write a large number with three digits and a prefix: 41234567 is ``41.2 M``."""
    if number is None:
        return UNKNOWN
    for size, prefix in _PREFIXES:
        # 999,500 would round to 1000 k: from there on the larger prefix is used.
        if abs(number) >= 0.9995 * size:
            return f"{_three_digits(number / size)}{NBSP}{prefix}"
    return f"{number:.0f}"


def seconds(duration: float | None) -> str:
    """Write a duration: 92.4 is ``1 min 32 s``."""
    if duration is None:
        return UNKNOWN
    if round(duration, 1) < _MINUTE:
        return f"{_three_digits(duration)}{NBSP}s"
    whole = round(duration)
    if whole < _HOUR:
        return f"{whole // _MINUTE}{NBSP}min {whole % _MINUTE}{NBSP}s"
    minutes = round(duration / _MINUTE)
    return f"{minutes // _MINUTE}{NBSP}h {minutes % _MINUTE}{NBSP}min"


def milliseconds(duration: float) -> str:
    """Write a short duration: 0.00214 is ``2.14 ms``."""
    return f"{_three_digits(1000 * duration)}{NBSP}ms"


def times(before: float, after: float) -> str:
    """Write how many times as fast something became: 0.003 and 0.002 are ``1.50×``."""
    return f"{before / after:.2f}{TIMES}"


def subject(model: str, data: str) -> str:
    """Name what a run trained: ``resnet20 on digits``; either part may be missing."""
    return " on ".join(part for part in (model, data) if part)


def number(value: float | None, digits: int = 3) -> str:
    """Write a plain number with so many significant digits."""
    return UNKNOWN if value is None else f"{value:.{digits}g}".replace("-", MINUS)


def short(name: str, length: int = 24) -> str:
    """Shorten the path of a module from its left, keeping numbers: ``e.l.e11.mlp.0``."""
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= length:
            break
        # Its numbers tell a module from its neighbours: stage2 and stage3 are s2 and s3.
        parts[place] = re.sub(r"^(\D)\D*.*?(\d*)$", r"\1\2", part)
    name = ".".join(parts)
    return name if len(name) <= length else f"…{name[1 - length :]}"


def plain(name: str) -> str:
    """Make a name safe inside plotly's texts, which read some HTML tags and its entities."""
    return html.escape(name, quote=False)


def plural(number_of: int, noun: str, nouns: str = "") -> str:
    """Write a number with its noun: 1 is ``1 layer``, 3 is ``3 layers``."""
    return f"{number_of:,} {noun if number_of == 1 else nouns or noun + 's'}"


def joined(parts: list[str]) -> str:
    """Join parts as a sentence does: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value) * (1 + 1e-9))))
    return f"{value:.{min(digits, 2)}f}"
