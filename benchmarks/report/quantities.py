"""Figures as a reader takes them in: three digits, a unit, none that its samples do not carry."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# The end of a column's name, the unit it stands for, and how many of that unit it counts in.
_UNITS: tuple[tuple[str, str, float], ...] = (
    ("_flop_per_s", "FLOP/s", 1.0),
    ("gflop_per_s", "FLOP/s", 1e9),
    ("_gb_per_s", "B/s", 1e9),
    ("bytes_per_s", "B/s", 1.0),
    ("gflop", "FLOP", 1e9),
    ("flop", "FLOP", 1.0),
    ("_nbytes", "B", 1.0),
    ("_mb", "B", 1e6),
    ("_us", "s", 1e-6),
    ("_ms", "s", 1e-3),
    ("_per_s", "/s", 1.0),
    ("_s", "s", 1.0),
)
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_SHARE = re.compile(r"(?:^|_)(?:share|spread)(?:_|$)")
# From so many samples on a percentile is one: below, it is the largest sample by another name.
_SAMPLES = {"p50": 1, "p90": 10, "p99": 100, "min": 2, "max": 2, "spread": 4}
_LABELS = {
    "p50": "median",
    "request p50": "request median",
    "pictures_per_s": "pictures a second",
    "gflop_per_s": "rate",
}
NO_SHARE = "none: above the peak as measured"


def label(column: str) -> str:
    """A column's heading: its words, without what its cells say."""
    if column in _LABELS:
        return _LABELS[column]
    for end, _, _ in _UNITS:
        if column.endswith(end):
            column = column.removesuffix(end) or end.strip("_")
            break
    words = column.replace("_", " ").strip()
    return _LABELS.get(words, words)


def shown(column: str, value: object) -> str:
    """A cell: three digits and the unit that its column's name ends in; nothing for None.

    A share is a percentage. One above 1 is none: what it is a share of was measured too low.
    """
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(shown(column, each) for each in value)
    if not isinstance(value, int | float):
        return str(value)
    if _SHARE.search(column):
        if value > 1 and "share" in column:
            return NO_SHARE
        return f"{three(100 * value)} %"
    for end, unit, times in _UNITS:
        if column.endswith(end):
            return quantity(value * times, unit)
    return f"{value:,}" if isinstance(value, int) else three(value)


def quantity(value: float, unit: str) -> str:
    """A number with its unit, in the prefix that leaves it at 1 or more; seconds have no kilo."""
    if unit == "/s":
        return f"{three(value)} /s"
    for size, prefix in _PREFIXES:
        too_large = size > 1 and unit == "s"
        too_small = size < 1 and unit != "s"
        if not too_large and not too_small and abs(value) >= size:
            return f"{three(value / size)} {prefix}{unit}"
    return f"{three(value)} {unit}"


def three(value: float) -> str:
    """Three digits, without an exponent between a thousandth and a million."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}" if value else "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.{digits}f}"


def sound(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the percentiles and extremes that its number of samples does not carry."""
    count = row.get("count") or row.get("pictures_timed")
    if count is None and "request_p50_ms" in row and row.get("pictures") and row.get("images"):
        count = row["pictures"] // row["images"]
    if not isinstance(count, int):
        return dict(row)
    return {
        column: None
        if any(part in _SAMPLES and count < _SAMPLES[part] for part in column.split("_"))
        else value
        for column, value in row.items()
    }
