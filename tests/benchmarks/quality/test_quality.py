"""The quality benchmark's scores, against hand-made cases with known answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks.analysis.significance import mean_interval
from benchmarks.measures.quality import QualityOptions
from benchmarks.quality import scores as quality_scores
from benchmarks.quality.cases import Case, UnknownRowError, cases, chosen_of, variants
from benchmarks.quality.page import PAPER, quality_page
from benchmarks.quality.paired import header_of_rows
from benchmarks.quality.scores import IDENTITY_ATTRIBUTES, Judge, chance_scores
from engines.bundle.quantization import Quantization
from mini.probes import person_probe, setting_probe
from mini.world import ATTRIBUTES, POSES, SCENES
from runtime import Request
from tests.benchmarks.made_up import quality_of, quality_row


def test_cases_are_held_out_people_one_and_two_in_turn() -> None:
    listed = cases(6)
    assert [len(case.looks) for case in listed] == [1, 2] * 3
    assert all(look.held_out for case in listed for look in case.looks)
    assert [case.prompt for case in listed] == [case.prompt for case in cases(6)]
    assert all(case.prompt.count("<|image|>") == len(case.photos) for case in listed)


def test_every_variant_is_a_valid_request_and_the_paper_has_its_row() -> None:
    listed = variants()
    for variant in listed:
        Request(prompt="a man <|image|>", references=["him.png"], **variant.options)
    names = [variant.name for variant in listed]
    assert len(set(names)) == len(names) and set(PAPER) <= set(names)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the probes: what they will tell of the next views."""
    answers: dict[str, Any] = {}
    monkeypatch.setattr(quality_scores, "open_probes", lambda: (person_probe(), setting_probe()))
    monkeypatch.setattr(
        quality_scores,
        "answers",
        lambda probe, views: answers["people" if len(views) == 2 else "setting"],
    )
    return answers


def _case() -> tuple[Case, list[dict[str, int]]]:
    case = cases(2)[1]
    return case, [look.labels() for look in case.looks]


def test_identity_is_that_of_the_person_drawn_worst(told: dict[str, Any]) -> None:
    case, labels = _case()
    wrong = dict(labels[1])
    for name in IDENTITY_ATTRIBUTES[:3]:
        wrong[name] = (wrong[name] + 1) % len(ATTRIBUTES[name])
    # The caption says the kind, so that it does not count.
    wrong["kind"] = (wrong["kind"] + 1) % 4
    told["people"] = {name: np.array([labels[0][name], wrong[name]]) for name in ATTRIBUTES}
    scene, pose = list(SCENES).index(case.setting.scene), POSES.index(case.setting.pose)
    other = (pose + 1) % len(POSES)
    told["setting"] = {
        name: np.array([choice])
        for name, choice in (("scene", scene), ("pose", other), ("people", 1))
    }
    scores = Judge().scores([case.truth()], [case])
    assert scores.identity[0] == pytest.approx(1 - 3 / 9)
    assert (scores.scene[0], scores.pose[0], scores.people[0]) == (1.0, 0.0, 1.0)
    assert scores.prompt[0] == pytest.approx(2 / 3)


def test_chance_is_far_below_certainty_and_above_nothing() -> None:
    chance = chance_scores(cases(120))
    assert 0.2 < chance.identity < 0.5
    assert 0.02 < chance.scene < 0.25


def test_an_interval_holds_the_mean_and_narrows_with_more_pictures() -> None:
    few = np.array([0.0, 1.0] * 10)
    low, high = mean_interval(few)
    assert low < 0.5 < high
    narrow = mean_interval(np.tile(few, 100))
    assert narrow[1] - narrow[0] < (high - low) / 5


def test_the_page_says_where_an_order_of_the_paper_does_not_reproduce() -> None:
    rows = [quality_row("full method", 0.8, 0.9)]
    rows += [quality_row(name, 0.7, 0.95) for name in list(PAPER)[1:]]
    accuracy = dict.fromkeys(IDENTITY_ATTRIBUTES, 0.9)
    text = quality_page(quality_of(rows, accuracy, commit="abc"))
    lines = text.splitlines()
    start = "- without scene construction: "
    assert f"{start}identity loses 0.100 [-0.120, -0.080], as in the paper." in lines
    unsure = "**unlike the paper**, though the interval holds 0"
    assert f"{start}prompt gains 0.050 [-0.010, +0.110], {unsure}." in lines
    # The paper's identity is higher without fusion.
    start = "- without subject-scene fusion: "
    assert f"{start}identity loses 0.100 [-0.120, -0.080], **unlike the paper**." in lines
    assert "0.810 / 0.790" in text  # one person and two, as the paper tells them apart
    assert "{" not in text


def test_a_picture_of_the_world_differs_with_its_case() -> None:
    first, second = cases(2)
    again = dataclasses.replace(first, seed=first.seed)
    assert np.array_equal(first.truth(), again.truth())
    assert not np.array_equal(first.truth(), second.truth())


@pytest.mark.parametrize("word", ["1", "0", "-3", "many"])
def test_too_few_pictures_are_refused_before_anything_is_drawn(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["quality", f"--pictures={word}"])
    assert f"{word}: expected at least 2" in capsys.readouterr().err


def test_the_page_tells_of_bfloat16_where_the_processor_has_it() -> None:
    rows = [quality_row(name, 0.7, 0.95) for name in PAPER]
    record = quality_of(rows, dict.fromkeys(IDENTITY_ATTRIBUTES, 0.9))
    told = "with the fp32 bundle, 0.002 where OpenVINO computes the U-Nets in bfloat16.\n"
    assert told in quality_page(record)
    without = dataclasses.replace(record.facts, bfloat16_mean_difference=None)
    text = quality_page(dataclasses.replace(record, facts=without))
    assert "with the fp32 bundle; there is no row in bfloat16" in text
    assert "None" not in text


def test_the_page_shows_what_the_critics_tell_where_a_record_has_it() -> None:
    rows = [quality_row(name, 0.7, 0.95) for name in PAPER]
    accuracy = dict.fromkeys(IDENTITY_ATTRIBUTES, 0.9)
    assert "Fréchet" not in quality_page(quality_of(rows, accuracy))
    seen = dataclasses.replace(
        rows[0], perceptual=0.0123, sharpness=0.9, likeness=0.8, least_likeness=0.7,
        least_likeness_95=(0.6, 0.75), verified=0.95, frechet=3.2, frechet_error=0.4,
    )  # fmt: skip
    text = quality_page(
        quality_of([dataclasses.replace(seen, row=row.row) for row in rows], accuracy)
    )
    assert "| perceptual | sharpness | likeness | least likeness | verified | Fréchet |" in text
    assert "| 0.0123 | 0.90 | 0.800 | 0.700 | 0.950 | 3.20 ± 0.40 |" in text
    assert "*least likeness*" in text and "{" not in text


def test_rows_that_are_asked_for_are_drawn_beside_the_full_method() -> None:
    listed, base = variants(), "full method"
    asked = chosen_of(listed, ("FP8", "INT8"), quick=False, always=[base])
    assert [each.name for each in asked] == [base, "INT8", "FP8"]
    assert {each.quantization for each in asked[1:]} == set(Quantization)
    assert chosen_of(listed, (), quick=False, always=[base]) == listed
    # A page goes on showing the whole table.
    assert header_of_rows("quality", QualityOptions(rows=("INT8",))).quick
    assert not header_of_rows("quality", QualityOptions()).quick
    few = chosen_of(listed, (), quick=True, always=[base])
    assert few == [each for each in listed if each.quick] != []
    with pytest.raises(UnknownRowError, match=r"no row 'INT4'; take of: full method, .*INT8"):
        chosen_of(listed, ("INT4",), quick=False, always=[base])
