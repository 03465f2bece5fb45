"""New plans must draw what the CPU draws, through `python -m runtime`, or are not published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines import build as engines_build
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.manifest import MANIFEST_NAME
from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.errors import PlanBuildError, PlanRefusedError
from engines.plans import picture as plan_picture
from engines.plans.bundle_plans import PlanRequest, build_plans
from engines.plans.picture import compare_pictures
from tests.doubles.plan_builds import Builds, Said
from tests.doubles.small_bundle import file_record
from tests.engines.conftest import MACHINE, SetUp
from tests.kernels.recorder import written_library
from tests.vendor.cuda.bindings.driver import KERNELS


@pytest.fixture
def records(small_copy: Path) -> list[PlanRecord]:
    build_plans(small_copy, MACHINE, PlanRequest(), Said(), lambda *_: None, Builds())
    return Bundle.open(small_copy).manifest.plans


def _draws(found: float, expected: float, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let the two backends draw constants; returns the folders they were drawn from."""
    folders: list[Path] = []

    def final_latents(folder: Path, backend: str, latents: Path, references: list[Path]) -> object:
        opened = Bundle.open(folder)
        assert len(opened.manifest.plans) == 6
        assert opened.manifest.plans[0].path in opened.manifest.plan_files()
        folders.append(folder)
        return np.full((1, 4, 8, 8), found if backend == "tensorrt" else expected)

    monkeypatch.setattr(plan_picture, "_final_latents", final_latents)
    return folders


def test_the_candidate_opens_with_the_new_plans_and_leaves_nothing_behind(
    small_copy: Path, records: list[PlanRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = _draws(1.01, 1.0, monkeypatch)
    manifest = Bundle.open(small_copy).manifest
    assert compare_pictures(small_copy, manifest, records) == pytest.approx(0.01)
    assert len(folders) == 2
    assert not folders[0].exists()


@pytest.mark.parametrize(
    ("found", "words"), [(1.2, "2.00e-01 from the CPU's"), (float("nan"), "NaN")]
)
def test_another_picture_refuses_the_plans(
    found: float,
    words: str,
    small_copy: Path,
    records: list[PlanRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _draws(found, 1.0, monkeypatch)
    with pytest.raises(PlanRefusedError, match=words):
        compare_pictures(small_copy, Bundle.open(small_copy).manifest, records)


def test_without_a_plan_of_every_component_nothing_is_drawn(
    small_copy: Path, records: list[PlanRecord]
) -> None:
    some = [record for record in records if record.component is not Component.VAE_DECODER]
    assert compare_pictures(small_copy, Bundle.open(small_copy).manifest, some) is None


def test_a_runtime_that_cannot_draw_gives_its_reason(
    small_copy: Path, records: list[PlanRecord]
) -> None:
    """The small bundle's tokenizer is none."""
    with pytest.raises(PlanBuildError, match="the runtime cannot draw on tensorrt"):
        compare_pictures(small_copy, Bundle.open(small_copy).manifest, records)


@pytest.mark.slow
def test_a_whole_build_ends_with_the_same_picture_on_both_backends(
    bundle_copy: Path, double: SetUp, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = bundle_copy / KERNELS_FOLDER
    written_library(folder, element_type="float32")
    manifest = Bundle.open(bundle_copy).manifest
    kernels = {f"{KERNELS_FOLDER}/{path.name}": file_record(path) for path in folder.iterdir()}
    manifest = replace(
        manifest,
        files=manifest.files | kernels,
        dimensions=replace(manifest.dimensions, native_px=64),
    )
    (bundle_copy / MANIFEST_NAME).write_text(manifest.to_json())
    monkeypatch.setenv(KERNELS, str(folder.resolve()))
    assert engines_build.main([str(bundle_copy), "--json"]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["built"]) == 6
    assert "the pictures' latents are within" in captured.err
    assert Bundle.open(bundle_copy).verify() > 20
