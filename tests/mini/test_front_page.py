"""The front page's people: chosen by a rule, whom training never saw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from PIL import Image

from mini import front_page
from mini.front_page import CANDIDATES, ROWS, best_of, candidates, sureness
from mini.probes import open_probes
from mini.world import SCENES
from runtime import FaceDiffuser, Stage, StepInfo


def test_candidates_are_other_people_whom_training_never_saw() -> None:
    for row, (people, doing) in enumerate(ROWS):
        found = candidates(row)
        assert len({each.looks for each in found}) == CANDIDATES
        assert [each.seed for each in found] == list(range(CANDIDATES))
        for each in found:
            assert len(each.looks) == people == each.prompt.count("<|image|>")
            assert all(look.held_out for look in each.looks)
            assert each.prompt.endswith(doing) and each.scene in SCENES


def test_the_probes_are_surer_of_the_right_person_than_of_another() -> None:
    first, other = candidates(3)[:2]
    portrait = first.photos()[0].resize((128, 128))
    probes = open_probes()
    assert sureness(portrait, first, probes) > sureness(portrait, other, probes)


def test_the_surest_candidate_is_taken(monkeypatch: Any) -> None:
    monkeypatch.setattr(front_page, "sureness", lambda picture, example, probes: picture.seed == 5)

    def generate(request: Any) -> Any:
        return SimpleNamespace(pictures=[SimpleNamespace(seed=request.seed)])

    opened = cast(FaceDiffuser, SimpleNamespace(generate=generate))
    assert best_of(opened, 0, cast(Any, None)).seed == 5


def test_a_frame_shows_maps_where_both_models_draw_and_says_who_draws_elsewhere() -> None:
    info = cast(StepInfo, SimpleNamespace(step=1, num_steps=4, stage=Stage.FUSION))
    maps = (np.eye(16), np.eye(16))
    picture = Image.new("RGB", (128, 128), "blue")
    both = np.asarray(front_page._frame(info, picture, maps))
    alone = np.asarray(front_page._frame(info, picture, None))
    assert both.shape == alone.shape
    half = both.shape[1] // 2
    assert both[60:, half:].std() > 30 > alone[60:, half:].std()
