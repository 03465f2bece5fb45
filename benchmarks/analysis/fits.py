"""Curves through measurements: straight lines, powers, and the knee of a throughput curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A point counts as the knee when it reaches this share of the best throughput.
KNEE_SHARE = 0.95


@dataclass(frozen=True)
class Line:
    """y = intercept + slope * x, by least squares. r2: share of the variance it explains."""

    intercept: float
    slope: float
    r2: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Raises ValueError for fewer than two different x."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(set(x)) < 2 or xs.shape != ys.shape:
        raise ValueError(f"a line needs two different x and a y for each, got {list(x)!r}")
    slope, intercept = np.polyfit(xs, ys, 1)
    rest = ((ys - intercept - slope * xs) ** 2).sum()
    total = ((ys - ys.mean()) ** 2).sum()
    return Line(float(intercept), float(slope), float(1 - rest / total) if total else 1.0)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The power p of y ~ x**p: the slope between the logarithms."""
    return line([float(v) for v in np.log(x)], [float(v) for v in np.log(y)]).slope


def knee(rates: Sequence[float]) -> int:
    """Index of the first point within KNEE_SHARE of the best rate: more only adds waiting."""
    if not len(rates):
        raise ValueError("a throughput curve needs points")
    best = max(rates)
    return next(i for i, rate in enumerate(rates) if rate >= KNEE_SHARE * best)
