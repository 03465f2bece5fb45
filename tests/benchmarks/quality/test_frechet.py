"""The Fréchet distance, against its formula written with a general matrix root."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.analysis.significance import Values
from benchmarks.quality.frechet import SWAPS, Reference


def _features(seed: int, count: int = 300, width: int = 7) -> Values:
    chance = np.random.RandomState(seed)
    mixed: Values = chance.standard_normal((count, width)) @ chance.standard_normal((width, width))
    return mixed + chance.standard_normal(width)


def plain_distance(first: Values, second: Values) -> float:
    """Heusel et al. 2017, with the root of the product of the covariances by its eigenvalues."""
    means = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = np.linalg.eig(a @ b)
    root = vectors @ np.diag(np.sqrt(values.astype(complex))) @ np.linalg.inv(vectors)
    return float(means + np.trace(a + b - 2 * root.real))


def test_it_is_what_its_formula_says() -> None:
    first, second = _features(1), _features(2)
    found = Reference(first).distance(second)
    assert found == pytest.approx(plain_distance(first, second), rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_and_a_moved_one_at_the_square_of_the_way() -> None:
    features = _features(1)
    reference = Reference(features)
    assert reference.distance(features) == pytest.approx(0, abs=1e-9)
    assert reference.distance(features + 2.0) == pytest.approx(4 * features.shape[1])


def test_its_error_falls_with_more_pictures() -> None:
    reference = Reference(_features(1, count=400, width=3))
    few, many = (reference.error(_features(2, count, 3)) for count in (30, 400))
    assert 0 < many < few / 1.5


def test_pairs_that_all_moved_away_are_noticed_and_noise_on_them_is_not() -> None:
    reference, base = Reference(_features(1, width=4)), _features(1, count=80, width=4)
    noise = np.random.RandomState(3).standard_normal(base.shape) * 0.05
    assert reference.paired_p(base + 0.5 + noise, base) == 1 / (SWAPS + 1)
    assert reference.paired_p(base + noise[::-1], base + noise) > 0.01


def test_the_error_counts_how_few_pictures_the_reference_has() -> None:
    ours = np.random.RandomState(0).standard_normal((400, 3))
    few = np.random.RandomState(1).standard_normal((25, 3))
    many = np.random.RandomState(2).standard_normal((400, 3))
    assert Reference(few).error(ours) > 2 * Reference(many).error(ours)
