"""The Fréchet distance of sets of pictures, with its own error and a test of pairs.

Heusel et al. 2017's distance, of the features of mini.critics.Perception in place of Inception's:
the distance of two normal distributions with the features' means and covariances. It falls with the
number of pictures toward its limit, so that only distances of as many pictures compare.
"""

from __future__ import annotations

import numpy as np

from benchmarks.analysis.significance import Values, flips

SWAPS = 999
_RESAMPLES = 200


class Reference:
    """The features of the pictures that others are held against [n, width]."""

    def __init__(self, features: Values) -> None:
        self._features = features
        self._mean, self._covariance = features.mean(axis=0), np.cov(features, rowvar=False)
        self._root = _root(self._covariance)

    def distance(self, features: Values) -> float:
        """|difference of means|^2 + tr(A + B - 2 sqrt(sqrt(B) A sqrt(B)))."""
        mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
        shared = np.linalg.eigvalsh(self._root @ covariance @ self._root)
        apart = np.square(mean - self._mean).sum() + np.trace(covariance + self._covariance)
        return float(apart - 2 * np.sqrt(shared.clip(min=0)).sum())

    def error(self, features: Values, *, seed: int = 0) -> float:
        """The distance's standard deviation over bootstrap samples of both sets."""
        chance = np.random.RandomState(seed)
        found = []
        for _ in range(_RESAMPLES):
            ours, own = (
                each[chance.randint(0, len(each), len(each))] for each in (features, self._features)
            )
            found.append(Reference(own).distance(ours))
        return float(np.std(found, ddof=1))

    def paired_p(self, changed: Values, base: Values, *, seed: int = 0) -> float:
        """How often the two sets' distances differ as much where members of pairs change places by
        chance; two-sided."""
        found = abs(self.distance(changed) - self.distance(base))
        exceeded = 0
        for signs in flips(SWAPS, len(base), seed):
            stays = signs[:, None] > 0
            first, second = np.where(stays, changed, base), np.where(stays, base, changed)
            drawn = abs(self.distance(first) - self.distance(second))
            exceeded += drawn >= found * (1 - 1e-9)
        return float(1 + exceeded) / (SWAPS + 1)


def _root(covariance: Values) -> Values:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    root: Values = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
