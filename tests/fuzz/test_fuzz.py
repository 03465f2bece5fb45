"""A slice of every fuzzer, the same each time; the modules' own commands run all of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from runtime import FaceDiffuser
from tests.fuzz import bundles, photos, soak


def faults(outcomes: Counter[str]) -> list[str]:
    return [found for found in outcomes if found.startswith("FAULT")]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
def test_damaged_photos_are_refused_or_read(capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = photos.main(count=220)
    assert not faults(outcomes)
    assert outcomes["refused"] > 50


def test_damaged_bundles_are_refused_or_draw_the_same_picture(golden_bundle: Path) -> None:
    outcomes = bundles.main(golden_bundle, count=24)
    assert not faults(outcomes)
    assert outcomes["refused (BundleCorruptError)"] > 12


@pytest.mark.parametrize("provider", ["onnxruntime-cpu", "openvino"])
def test_mixed_calls_of_four_threads_never_mix_people(provider: str, golden_bundle: Path) -> None:
    with FaceDiffuser.open(golden_bundle, provider=provider, threads=1) as face_diffuser:
        assert soak.differing(face_diffuser, 20) == 0
