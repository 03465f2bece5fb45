"""New plans must draw what the CPU draws, through `python -m runtime`, or are not published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines import build as engines_build
from engines.bundle.candidate import Draw
from engines.bundle.files import file_record
from engines.bundle.folder import KERNELS_FOLDER, TOKENIZER_PATH, Bundle
from engines.bundle.manifest import MANIFEST_NAME, Precision
from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.errors import PlanBuildError, PlanRefusedError
from engines.gate import PLAN_PIPELINE_BOUNDS
from engines.plans.bundle_plans import PlanRequest, build_plans
from engines.plans.proofs.picture import compare_pictures
from engines.system.processes import Ended
from tests.doubles.plan_builds import Builds, Said
from tests.engines.conftest import TARGET, SetUp
from tests.kernels.recorder import written_library
from tests.vendor.cuda.bindings.driver import KERNELS

BOUND = PLAN_PIPELINE_BOUNDS[Precision.FP16]


@pytest.fixture
def records(small_copy: Path) -> list[PlanRecord]:
    build_plans(small_copy, TARGET, PlanRequest(), Said(), lambda *_: None, Builds())
    return Bundle.open(small_copy).manifest.plans


def _draws(found: float, expected: float, turned: int = 0) -> tuple[Draw, list[Path]]:
    """What draws constants on the two backends, and the folders that it was asked to draw from.

    turned: of 64 pixels, those that go to the other model on TensorRT.
    """
    folders: list[Path] = []

    def draw(*words: object) -> Ended:
        named = dict(zip(words[1::2], words[2::2], strict=True))
        folder = Path(str(named["--bundle"]))
        opened = Bundle.open(folder)
        assert len(opened.manifest.plans) == 8
        assert opened.manifest.plans[0].spec.path in opened.manifest.plan_files()
        folders.append(folder)
        on_plans = named["--provider"] == "tensorrt"
        level = found if on_plans else expected
        assert (named["--fusion"] == "saliency") == ("--maps" in named)
        if "--maps" in named:
            # The models' saliencies differ by a tenth: beyond what half precision explains.
            mask = np.arange(64).reshape(1, 1, 8, 8) < (turned if on_plans else 0)
            maps = np.full((1, 1, 8, 8), 1 / 64)
            np.savez(str(named["--maps"]), tdm=maps, sdm=maps * 0.9, mask=mask)
        np.save(Path(str(named["--out"])), np.full((1, 4, 8, 8), level))
        return Ended(code=0, printed="", last_words="")

    return draw, folders


def test_the_candidate_opens_with_the_new_plans_and_leaves_nothing_behind(
    small_copy: Path, records: list[PlanRecord]
) -> None:
    draw, folders = _draws(1.01, 1.0)
    manifest = Bundle.open(small_copy).manifest
    assert compare_pictures(draw, small_copy, manifest, records) == pytest.approx(0.01)
    assert len(folders) == 4, "noises averaged, and fused by saliency"
    assert not folders[0].exists()


@pytest.mark.parametrize(("turned", "refused"), [(0, False), (1, True)])
def test_pixels_that_go_to_the_other_model_refuse_the_plans(
    turned: int, *, refused: bool, small_copy: Path, records: list[PlanRecord]
) -> None:
    draw, _ = _draws(1.0, 1.0, turned)
    manifest = Bundle.open(small_copy).manifest
    if not refused:
        assert compare_pictures(draw, small_copy, manifest, records) == 0.0
        return
    with pytest.raises(PlanRefusedError, match=r"1\.6% of the pixels go to the other model"):
        compare_pictures(draw, small_copy, manifest, records)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (1.2, "2.00e-01 from the CPU's"),
        (1 + 1.1 * BOUND, "from the CPU's"),
        (1 - 1.1 * BOUND, "from the CPU's"),
        (float("nan"), "NaN"),
    ],
)
def test_another_picture_refuses_the_plans(
    found: float,
    words: str,
    small_copy: Path,
    records: list[PlanRecord],
) -> None:
    draw, _ = _draws(found, 1.0)
    with pytest.raises(PlanRefusedError, match=words):
        compare_pictures(draw, small_copy, Bundle.open(small_copy).manifest, records)


def test_a_picture_within_its_bound_is_let_through(
    small_copy: Path, records: list[PlanRecord]
) -> None:
    draw, _ = _draws(1 + 0.9 * BOUND, 1.0)
    manifest = Bundle.open(small_copy).manifest
    assert compare_pictures(draw, small_copy, manifest, records) == pytest.approx(0.9 * BOUND)


def test_without_a_plan_of_every_component_nothing_is_drawn(
    small_copy: Path, records: list[PlanRecord]
) -> None:
    some = [record for record in records if record.spec.component is not Component.VAE_DECODER]
    draw, folders = _draws(1.0, 1.0)
    assert compare_pictures(draw, small_copy, Bundle.open(small_copy).manifest, some) is None
    assert not folders


def test_a_runtime_that_cannot_draw_gives_its_reason(
    small_copy: Path, records: list[PlanRecord]
) -> None:
    manifest, path = Bundle.open(small_copy).manifest, small_copy / TOKENIZER_PATH
    path.write_text("{}")
    manifest = replace(manifest, files={TOKENIZER_PATH: file_record(path)})
    with pytest.raises(PlanBuildError, match="the runtime cannot draw on tensorrt"):
        compare_pictures(engines_build.draw, small_copy, manifest, records)


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
    assert len(json.loads(captured.out)["built"]) == 8
    assert "the pictures' latents are within" in captured.err
    assert Bundle.open(bundle_copy).verify() > 20
