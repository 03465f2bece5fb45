"""Every example, run as its user runs it, and what it writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.paths import ROOT

pytestmark = pytest.mark.slow  # every program draws, in a process of its own

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "__init__.py")


def picture(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as opened:
        return np.asarray(opened)


def one_picture(folder: Path, printed: str) -> None:
    assert picture(folder / "reading.png").std() > 1
    assert re.fullmatch(r"reading\.png: seed 7, \d+ ms\n", printed)


def two_pictures_that_differ(folder: Path, _: str) -> None:
    first, second = picture(folder / "park-0.png"), picture(folder / "park-1.png")
    assert first.shape == second.shape
    assert (first != second).any()


def the_step_it_was_cancelled_at(folder: Path, printed: str) -> None:
    assert printed == "cancelled at step 1 of 50\n"
    assert not list(folder.glob("*.png"))


def an_identity_and_its_pictures(folder: Path, _: str) -> None:
    assert (folder / "her.identity").stat().st_size < 10_000
    assert (picture(folder / "park.png") != picture(folder / "forest.png")).any()


# Between pictures of a grid.
GAP_PX = 4


def maps_of_every_fusion_step(folder: Path, _: str) -> None:
    written = sorted(path.name for path in folder.glob("maps-*.png"))
    # Of 10 steps, those from alpha = 0.3 to before beta = 0.6.
    assert written == ["maps-03.png", "maps-04.png", "maps-05.png"]
    sheet = picture(folder / written[0])
    width = (sheet.shape[1] - 2 * GAP_PX) // 3
    mask, tdm, sdm = (sheet[:, place * (width + GAP_PX) :][:, :width] for place in range(3))
    assert mask.shape == tdm.shape == sdm.shape
    assert not np.array_equal(tdm, sdm)
    assert not np.array_equal(mask, sdm)


def a_picture_for_each_handler(folder: Path, _: str) -> None:
    assert (picture(folder / "him.png") != picture(folder / "her.png")).any()


def latents_that_are_finite(folder: Path, printed: str) -> None:
    latents = torch.load(folder / "latents.pt", weights_only=True)
    assert latents.shape == (1, 4, 32, 32)
    assert latents.isfinite().all()
    assert re.match(r"the subject's model drew \d+% of", printed)


# The words after the program's name, the golden bundle for BUNDLE, and what must be there then.
EXPECTED: dict[str, tuple[list[str], Callable[[Path, str], None]]] = {
    "draw": (["BUNDLE", "3"], one_picture),
    "two_people": (["BUNDLE", "3"], two_pictures_that_differ),
    "cancel": (["BUNDLE", "0"], the_step_it_was_cancelled_at),
    "keep_identity": (["BUNDLE", "3"], an_identity_and_its_pictures),
    "maps": (["BUNDLE", "10"], maps_of_every_fusion_step),
    "own_thread": (["BUNDLE", "3"], a_picture_for_each_handler),
    "fuse_two_models": (["2"], latents_that_are_finite),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_writes_what_it_says(example: Path, golden_bundle: Path, tmp_path: Path) -> None:
    words, check = EXPECTED[example.stem]
    bundle = str(golden_bundle)
    finished = subprocess.run(
        [sys.executable, str(example), *(bundle if word == "BUNDLE" else word for word in words)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    check(tmp_path, finished.stdout)
