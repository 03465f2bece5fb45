"""Tests of pairs, against what is known of them without drawing anything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.analysis.significance import FLIPS, paired_shift, sign_flip_p


def test_p_is_the_share_of_all_signs_that_go_as_far() -> None:
    differences = np.array([0.9, 0.4, -0.2, 0.7, 0.1, 0.3, -0.1, 0.5])
    signs = np.array(list(itertools.product((-1, 1), repeat=8)))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    # Three standard errors of a share of FLIPS draws.
    assert sign_flip_p(differences) == pytest.approx(exact, abs=3 * (exact / FLIPS) ** 0.5)


def test_a_shift_of_every_pair_is_noticed_in_either_direction_and_p_is_never_0() -> None:
    base = np.random.RandomState(1).standard_normal(60)
    for by in (0.01, -0.01):
        shift = paired_shift(base + by, base)
        assert shift.p == 1 / (FLIPS + 1)
        assert shift.low == pytest.approx(by) and shift.high == pytest.approx(by)


def test_nothing_is_noticed_where_nothing_differs() -> None:
    base = np.random.RandomState(1).standard_normal(60)
    assert paired_shift(base, base).p == 1.0


def test_chance_alone_is_noticed_as_often_as_p_says() -> None:
    chance = np.random.RandomState(2)
    found = [sign_flip_p(chance.standard_normal(20), seed=n) < 0.1 for n in range(150)]
    assert 0.03 < np.mean(found) < 0.19


def test_a_few_pairs_that_differ_among_many_that_do_not_are_noticed() -> None:
    base = np.zeros(40)
    changed = base.copy()
    changed[::2] = 0.5
    assert paired_shift(changed, base).p < 0.001


def test_what_are_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        paired_shift(np.zeros(3), np.zeros(4))
