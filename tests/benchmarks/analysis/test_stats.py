"""Statistics and fits against values worked out by hand or drawn from known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.analysis.fits import exponent, knee, line
from benchmarks.analysis.stats import paired_ratio, summary


def test_percentiles_are_interpolated_between_sorted_samples() -> None:
    found = summary([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.count, found.minimum, found.p50, found.maximum) == (5, 1.0, 3.0, 5.0)
    # Place 0.9 * 4 = 3.6 among the sorted samples, counted from 0, and 0.99 * 4 = 3.96.
    assert found.p90 == pytest.approx(4.6)
    assert found.p99 == pytest.approx(4.96)
    # Quartiles at places 1 and 3: 2 and 4, around a median of 3.
    assert found.spread == pytest.approx(2 / 3)


def test_one_sample_has_no_spread() -> None:
    found = summary([7.0])
    assert (found.p50, found.p99, found.spread) == (7.0, 7.0, 0.0)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_no_samples_and_impossible_ones_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        summary(samples)


def test_a_drift_that_meets_both_sides_leaves_the_paired_ratio_alone() -> None:
    drift = np.linspace(1.0, 3.0, 15)
    found = paired_ratio([float(1.5 * d) for d in drift], [float(d) for d in drift])
    assert (found.ratio, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.rounds == 15


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    trials, hits = 200, 0
    for _ in range(trials):
        ratios = 1.25 * np.exp(generator.normal(0, 0.1, 15))
        found = paired_ratio(list(ratios), [1.0] * 15, seed=int(generator.integers(2**31)))
        hits += found.low <= 1.25 <= found.high
    # The bootstrap of a median of 15 is a little off its 95 %; five standard errors besides.
    allowed = 5 * math.sqrt(0.95 * 0.05 / trials)
    assert hits / trials >= 0.90 - allowed


def test_unpaired_timings_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([1.0], [0.0])


def test_a_line_is_found_again() -> None:
    found = line([1.0, 2.0, 4.0], [5.0, 7.0, 11.0])
    assert (found.intercept, found.slope, found.r2) == pytest.approx((3.0, 2.0, 1.0))


def test_one_point_makes_no_line() -> None:
    with pytest.raises(ValueError, match="two different x"):
        line([1.0, 1.0], [1.0, 2.0])


def test_a_power_is_found_again() -> None:
    sizes = [512.0, 640.0, 768.0]
    assert exponent(sizes, [3 * size**2.3 for size in sizes]) == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("rates", "place"), [([1.0, 1.9, 2.0, 1.95], 1), ([3.0, 2.0], 0), ([1.0, 2.0, 4.0], 2)]
)
def test_the_knee_is_the_first_point_near_the_best(rates: list[float], place: int) -> None:
    assert knee(rates) == place
