"""Whether paired measurements differ: tests that assume nothing of their distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
FLIPS = 9999
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Shift:
    """By how much a second measurement differs from the first of the same thing, in the mean.

    low, high: the ends of the mean's 95 % bootstrap interval. p: of a sign-flip permutation test,
    two-sided, at least 1 / (FLIPS + 1).
    """

    mean: float
    low: float
    high: float
    p: float


def paired_shift(changed: Values, base: Values, *, seed: int = 0) -> Shift:
    """changed - base, pair by pair. Raises ValueError where they are no pairs."""
    if changed.shape != base.shape or changed.ndim != 1 or not len(changed):
        raise ValueError(f"expected pairs, got {changed.shape} and {base.shape}")
    differences = changed - base
    low, high = mean_interval(differences, seed=seed)
    return Shift(
        mean=float(differences.mean()), low=low, high=high, p=sign_flip_p(differences, seed=seed)
    )


def mean_interval(values: Values, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap confidence interval of a mean; the same on each call."""
    index = np.random.RandomState(seed).randint(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[index].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def sign_flip_p(differences: Values, *, seed: int = 0) -> float:
    """How often a mean is as far from 0 where each difference has a sign by chance.

    If nothing differs, either member of a pair could as well have been the other (Fisher 1935). The
    signs that were found count as one draw, so that p is never 0.
    """
    signs = flips(FLIPS, len(differences), seed)
    found = abs(differences.mean())
    drawn = np.abs(signs @ differences) / len(differences)
    # Sums in another order differ in their last digits.
    return float(1 + (drawn >= found * (1 - 1e-12)).sum()) / (FLIPS + 1)


def flips(count: int, pairs: int, seed: int = 0) -> Values:
    """Signs by chance, -1.0 or 1.0 [count, pairs]; the same for the same arguments."""
    drawn = np.random.RandomState(seed).randint(0, 2, (count, pairs))
    signs: Values = np.where(drawn == 1, 1.0, -1.0)
    return signs
