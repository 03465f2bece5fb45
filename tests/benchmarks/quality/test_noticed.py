"""Faults that scores should notice: each differs from the picture as it is in what it says."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.analysis.significance import Values
from benchmarks.quality import kept
from benchmarks.quality import noticed as run
from benchmarks.quality.cases import BASE, FULL, Photos, Pixels, Variant, case_of, cases
from benchmarks.quality.corruptions import NOISE_SHARE, Corruption, blurred, corruptions, noisy
from benchmarks.quality.frechet import Reference
from benchmarks.quality.noticed import Scored, rows_of
from benchmarks.quality.noticed_page import END, START, noticed, noticed_table, with_noticed
from benchmarks.quality.sight import Sight, edge_energies, pixel_distances
from benchmarks.schema.quality import Measure, NoticedFacts, NoticedRecord, NoticedRow
from benchmarks.schema.results import line_of, record_of
from engines.bundle.folder import Bundle
from mini.world import draw_picture
from runtime import Request
from tests.benchmarks.made_up import header


def test_another_hat_changes_one_photo_above_the_eyes_and_nothing_else() -> None:
    for seed in range(6):
        own, other = case_of(seed), case_of(seed, Photos.OTHER_HAT)
        assert (own.setting, own.looks, own.prompt) == (other.setting, other.looks, other.prompt)
        assert all(map(np.array_equal, own.photos[1:], other.photos[1:]))
        changed = (own.photos[0] != other.photos[0]).any(axis=(1, 2))
        assert changed.any(), "the hat is the person's own"
        # Hair may fall differently below a hat; clothes, light and crop stay.
        assert not changed[100:].any()


def test_swapped_photos_are_the_other_persons() -> None:
    own, swapped = case_of(1), case_of(1, Photos.SWAPPED)
    assert np.array_equal(own.photos[0], swapped.photos[1])
    assert np.array_equal(own.photos[1], swapped.photos[0])
    assert own.looks == swapped.looks
    alone = case_of(0, Photos.SWAPPED)
    assert np.array_equal(alone.photos[0], case_of(0).photos[0])


def test_cases_are_shown_by_their_own_photos() -> None:
    assert all(map(np.array_equal, cases(2)[1].photos, case_of(1).photos))


def test_seven_faults_are_drawn_by_valid_requests_or_made_of_pictures() -> None:
    listed = corruptions()
    assert len(listed) == 7 and len({each.name for each in listed}) == 7
    for each in listed:
        if each.drawn is not None:
            Request(prompt="a man <|image|>", references=["him.png"], **each.drawn.options)
    with pytest.raises(ValueError, match="either"):
        Corruption(name="nothing")


def test_blur_takes_edges_and_noise_is_of_the_deviation_it_says() -> None:
    truth = [case_of(seed).truth() for seed in range(2)]
    assert (edge_energies(np.stack(blurred(truth))) < edge_energies(np.stack(truth)) / 2).all()
    gray = [np.full((64, 64, 3), 128, np.uint8)]
    noise = np.stack(noisy(gray)).astype(float) - 128
    assert noise.std() / 255 == pytest.approx(NOISE_SHARE, rel=0.05)
    assert np.array_equal(noisy(gray), noisy(gray))


def test_distances_and_edges_are_told_picture_by_picture() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert pixel_distances([black, white], [black, black]).tolist() == [0.0, 1.0]
    dot = black.copy()
    dot[4, 4] = 255
    # The Laplacian of a dot: 4 at it, 1 at each of its four neighbors; 36 inner pixels.
    assert edge_energies(np.stack([black, dot])) == pytest.approx([0.0, 20 / 36])


def test_likeness_is_that_of_the_person_least_like_their_photo() -> None:
    listed = cases(2)
    truth = [case.truth() for case in listed]
    sight = Sight(listed, truth, [case_of(seed).truth() for seed in range(5, 9)])
    seen = sight.seen(truth)
    assert seen.sharpness == pytest.approx([1.0, 1.0])
    # The second case has two people. Its picture with one of them somebody else's:

    stranger = replace(listed[1].looks[0], hat="straw", clothes_color="red", hair_color="pink")
    looks = (stranger, listed[1].looks[1])
    rng = random.Random(f"truth {listed[1].seed}")
    other = draw_picture(listed[1].setting, looks, rng).pixels
    found = sight.seen([truth[0], other])
    assert found.least[0] == pytest.approx(seen.least[0])
    assert found.least[1] < seen.least[1] - 0.2
    # The other person is as before: the mean falls by half of what the least does, or less.
    assert seen.likeness[1] - found.likeness[1] < seen.least[1] - found.least[1]
    row = sight.columns([truth[0], other], truth)
    assert row.least_likeness == pytest.approx(found.least.mean(), abs=1e-3)
    assert row.likeness == pytest.approx(found.likeness.mean(), abs=1e-3)
    assert row.perceptual and row.sharpness and row.frechet and row.frechet_error
    own = sight.columns(truth)
    assert (own.perceptual, own.sharpness, own.verified) == (None, 1.0, 1.0)
    # The mean of sharpness is that of its logarithm: half and twice the energy are as far away.
    worse = [blurred(truth)[0], noisy(truth)[1]]
    energies = edge_energies(np.stack(worse)) / edge_energies(np.stack(truth))
    assert sight.columns(worse).sharpness == pytest.approx(np.sqrt(energies.prod()), abs=1e-3)


def _scored(by: float) -> Scored:
    base: Values = np.random.RandomState(0).standard_normal(40)
    features: Values = np.random.RandomState(1).standard_normal((40, 3))
    values: dict[Measure, Values] = {each: base + by for each in Measure if each != Measure.FRECHET}
    return Scored(values=values, features=features + by)


def _record() -> NoticedRecord:
    reference = Reference(_scored(0.0).features)
    rows = [
        *rows_of("all moves", _scored(0.5), _scored(0.0), reference),
        *rows_of("nothing moves", _scored(0.0), _scored(0.0), reference),
    ]
    facts = NoticedFacts(
        pictures=40, world_pictures=40, frechet=0.5, frechet_error=0.25, frechet_world=0.125,
        equal_error_rate=0.0321,
    )  # fmt: skip
    return NoticedRecord(header=header("noticed"), facts=facts, rows=tuple(rows))


def test_a_run_scores_every_fault_against_the_pictures_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the world's own pictures in place of drawn ones, one of them with another person."""
    listed = cases(4)
    truth = [case.truth() for case in listed]
    base = noisy(truth)
    worse = [base[0], base[1], base[2], case_of(7).truth()]
    pictures = {FULL.name: truth, BASE.name: base, "4 steps": worse}
    monkeypatch.setattr(run, "_drawn", lambda *_, **__: pictures)
    monkeypatch.setattr(
        run, "world_pictures", lambda **_: [case_of(seed).truth() for seed in range(20, 60)]
    )
    record = run.measured_noticed(run.NoticedOptions(pictures=4, quick=True))
    assert record.facts.pictures == 4 and record.facts.world_pictures == 40
    # The world's own pictures are nearer to the world's own than with noise on them.
    assert record.facts.frechet_world < record.facts.frechet
    by = {(row.corruption, row.measure): row for row in record.rows}
    assert len(by) == 3 * len(Measure)
    pixels = pixel_distances(base, truth)
    assert by["4 steps", Measure.PIXELS].base == pytest.approx(pixels.mean(), abs=1e-5)
    # One of four pictures is another's: a quarter of its distance more, in the mean.
    moved = (pixel_distances([worse[3]], [truth[3]])[0] - pixels[3]) / 4
    assert by["4 steps", Measure.PIXELS].shift == pytest.approx(moved, abs=1e-5)
    assert by["4 steps", Measure.PERCEPTUAL].shift > 0
    for measure in (Measure.LIKENESS, Measure.IDENTITY):
        assert by["4 steps", measure].shift < 0
        assert by["4 steps", measure].shift < by["Gaussian blur, 1 px", measure].shift
    # Of the person least like their photo.
    least = Sight(listed, truth, truth).seen(base).least
    assert by["4 steps", Measure.LIKENESS].base == pytest.approx(least.mean(), abs=1e-4)
    # In powers of two, over the world's own.
    assert by["Gaussian blur, 1 px", Measure.SHARPNESS].shift < -1
    energies = edge_energies(np.stack(base)) / edge_energies(np.stack(truth))
    told = by["5 % noise", Measure.SHARPNESS].base
    assert told == pytest.approx(np.log2(energies).mean(), abs=1e-4)


def test_pictures_are_found_again_by_the_same_code_alone(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(small_bundle)
    before = kept.kept_path(bundle, BASE, 0)
    assert before == kept.kept_path(bundle, BASE, 0)
    others = [
        kept.kept_path(bundle, BASE, kept.PART_PICTURES),
        kept.kept_path(bundle, FULL, 0),
        kept.kept_path(bundle, replace(BASE, photos=Photos.SWAPPED), 0),
    ]
    monkeypatch.setattr(kept, "code_digest", lambda *_: "of other code")
    assert len({before, kept.kept_path(bundle, BASE, 0), *others}) == 5


def test_what_an_earlier_run_drew_is_not_drawn_again(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[range] = []

    def drawn(_: Path, __: Variant, seeds: range) -> tuple[list[Pixels], int]:
        asked.append(seeds)
        return [np.full((2, 2, 3), seed, np.uint8) for seed in seeds], 165

    monkeypatch.setattr(kept, "drawn_by_one_core", drawn)
    monkeypatch.setattr(kept, "BUNDLES", tmp_path)
    for count in (25, 22):
        pictures, evaluations = kept.kept_pictures(small_bundle, BASE, count)
        assert [int(each[0, 0, 0]) for each in pictures] == list(range(count))
        assert evaluations == 165
    assert asked == [range(20), range(20, 25)]
    # What was kept is too little: that part is drawn anew.
    assert len(kept.kept_pictures(small_bundle, BASE, 30)[0]) == 30
    assert asked[2:] == [range(20, 30)]


def test_a_pixel_distance_is_the_mean_share_of_the_range_of_each_pair() -> None:
    black, spotted = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    spotted[0, 1] = 51
    found = pixel_distances([black, spotted], [spotted, spotted])
    np.testing.assert_allclose(found, [51 / 255 / 4, 0])


def test_every_measure_has_its_row_in_the_tables_order() -> None:
    rows = rows_of("all moves", _scored(0.5), _scored(0.0), Reference(_scored(0.0).features))
    assert [row.measure for row in rows] == list(Measure)
    assert all(row.p < 0.01 and row.shift > 0 for row in rows)
    moved: NoticedRow = rows[0]
    assert moved.shift == pytest.approx(0.5) and moved.shift_95 == pytest.approx((0.5, 0.5))


def test_the_table_marks_what_is_noticed_and_counts_it() -> None:
    record = _record()
    assert set(noticed(record).values()) == {1}
    lines = noticed_table(record).splitlines()
    assert lines[2].startswith("| all moves | **+0.5000** (p 0.0001) |")
    assert lines[3].startswith("| nothing moves | +0.0000 (p 1.00) |")
    assert lines[4].startswith("| noticed | 1 of 2 |")


def test_the_section_is_put_before_the_paper_and_later_replaced() -> None:
    page = "# Page\n\n## Beside the paper\n\nrest\n"
    once = with_noticed(page, _record())
    assert once.index(START) < once.index(END) < once.index("## Beside the paper")
    assert "3.2 %" in once and "does not notice: nothing moves" in once and "{" not in once
    assert "40 pictures notice less than the 200 of a whole run" in once
    assert with_noticed(once, _record()) == once


def test_a_record_reads_back_as_it_was() -> None:
    record = _record()
    assert record_of("noticed", line_of(record)) == record
