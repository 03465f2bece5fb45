"""Statistics of timings: percentiles, spread, and confidence intervals of paired ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Summary:
    """What repeated timings say, in the unit they came in.

    p90, p99: interpolated linearly between the sorted samples, so with fewer than a hundred of them
    p99 leans on the largest. spread: the interquartile range over the median.
    """

    count: int
    p50: float
    p90: float
    p99: float
    minimum: float
    maximum: float
    spread: float


@dataclass(frozen=True)
class Interval:
    """A ratio with its confidence interval."""

    ratio: float
    low: float
    high: float
    rounds: int


def summary(samples: Sequence[float]) -> Summary:
    """Percentiles and spread; raises ValueError without samples or where one is not finite."""
    values = np.asarray(samples, np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"timings must be finite and at least one, got {list(samples)!r}")
    low, median, high, p90, p99 = np.percentile(values, [25, 50, 75, 90, 99])
    return Summary(
        count=len(values),
        p50=float(median),
        p90=float(p90),
        p99=float(p99),
        minimum=float(values.min()),
        maximum=float(values.max()),
        spread=float((high - low) / median) if median else 0.0,
    )


def paired_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0
) -> Interval:
    """Median of numerators[i] / denominators[i] with its bootstrap percentile interval.

    Both of a pair were taken in the same round, so what slows a whole round cancels. The interval
    holds CONFIDENCE of the medians of RESAMPLES resampled sets of rounds. Raises ValueError for
    unpaired or non-positive timings.
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if above.shape != below.shape or not above.size or min(above.min(), below.min()) <= 0:
        raise ValueError("a paired ratio needs as many positive timings on both sides")
    ratios = above / below
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(ratios), (RESAMPLES, len(ratios)))
    medians = np.median(ratios[picks], axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Interval(float(np.median(ratios)), float(low), float(high), len(ratios))
