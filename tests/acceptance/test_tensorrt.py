"""Acceptance on a machine with TensorRT: real plans, proven, compared, drawn from, cancelled.

FACE_DIFFUSER_BUNDLE names a bundle to use in place of the shipped model's, which is built first.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engines import build as engines_build
from engines import verify
from engines.bundle.folder import Bundle
from engines.bundle.plan_record import LibraryName
from engines.contract import Component
from engines.errors import BundleCorruptError, ProviderUnavailableError
from engines.gate import PLAN_PIPELINE_BOUNDS, relative_l2
from engines.tensorrt.libraries import TENSORRT
from engines.tensorrt.plans_here import plans_for
from engines.tensorrt.target import PlanTarget, plan_target
from export.bisect import __main__ as bisect
from export.build import main as export_build
from runtime import FaceDiffuser, OutputType, Request
from tests.paths import ROOT

REFERENCES = [ROOT / "examples" / "references" / name for name in ("him.png", "her.png")]
PROMPT = "a man <|image|> and a woman <|image|> in a park"

pytestmark = pytest.mark.tensorrt


@pytest.fixture(scope="module")
def target() -> PlanTarget:
    try:
        return plan_target(LibraryName.TENSORRT)
    except ProviderUnavailableError as error:
        pytest.skip(f"TensorRT cannot run here: {error}")


@pytest.fixture(scope="module")
def bundle(target: PlanTarget, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A half-precision bundle with plans for this machine."""
    given = os.environ.get("FACE_DIFFUSER_BUNDLE")
    path = Path(given) if given else tmp_path_factory.mktemp("acceptance") / "bundle"
    if not given:
        assert export_build(["--fp16", "--onnx-only", "--out", str(path)]) == 0
    assert engines_build.main([str(path)]) == 0
    return path


def test_every_plan_is_in_half_precision_and_within_its_bound(
    bundle: Path, target: PlanTarget
) -> None:
    plans = plans_for(Bundle.open(bundle), TENSORRT, target.architectures[0], target.version)
    assert set(plans) == set(Component)
    for record in (record for records in plans.values() for record in records):
        layers, parity = record.built.proofs.layers, record.built.parity
        assert layers is not None and layers.half_layers == layers.compute_layers > 0
        assert parity is not None
        assert 0 < parity.relative_l2 <= parity.bound, record.spec.name
    assert verify.main([str(bundle)]) == 0


def test_a_second_build_builds_nothing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engines_build.main([str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["built"] == []


def test_both_backends_draw_the_same_picture(bundle: Path) -> None:
    latents = {}
    for provider in ("tensorrt", "onnxruntime-cpu"):
        with FaceDiffuser.open(bundle, provider=provider) as face_diffuser:
            request = Request(
                prompt=PROMPT, references=REFERENCES, num_inference_steps=10, seed=7,
                fusion="addition",  # as the bound is derived: no pixel changes sides
                output_type=OutputType.LATENT,
            )  # fmt: skip
            latents[provider] = np.asarray(face_diffuser.generate(request).images)
            assert face_diffuser.provider == provider
    bound = PLAN_PIPELINE_BOUNDS[Bundle.open(bundle).manifest.precision]
    assert relative_l2(latents["tensorrt"], latents["onnxruntime-cpu"]) <= bound


def test_a_seed_draws_the_same_latents_again(bundle: Path) -> None:
    request = Request(
        prompt=PROMPT,
        references=REFERENCES,
        num_inference_steps=4,
        seed=1,
        output_type=OutputType.LATENT,
    )
    with FaceDiffuser.open(bundle, provider="tensorrt") as face_diffuser:
        first, second = (
            np.array(face_diffuser.generate(request).images, copy=True) for _ in range(2)
        )
    np.testing.assert_array_equal(first, second)


def test_several_images_draw_as_well(bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    assert engines_build.main([str(other), "--profile", "images"]) == 0
    request = Request(
        prompt=PROMPT, references=REFERENCES, num_inference_steps=4, seed=1, num_images=4
    )
    with FaceDiffuser.open(other, provider="tensorrt") as face_diffuser:
        assert len(face_diffuser.generate(request).images) == 4


def test_ctrl_c_cancels_a_real_build_within_a_second(bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    command = [sys.executable, "-m", "engines.build", str(other), "--optimization-level", "5"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr is not None
        for line in build.stderr:
            if '"event": "progress"' in line:
                break
        build.send_signal(signal.SIGINT)
        started = time.monotonic()
        build.stderr.read()
        assert build.wait() == 1
        assert time.monotonic() - started < 1
    Bundle.open(other).verify()


def test_a_truncated_plan_does_not_open(bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    plan = other / Bundle.open(other).manifest.plans[0].spec.path
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(BundleCorruptError, match=r"python -m engines\.build"):
        FaceDiffuser.open(other, provider="tensorrt")


def test_bisecting_on_tensorrt_runs(bundle: Path) -> None:
    assert bisect.main([str(bundle), "fusion_mlp", "--backend", "tensorrt"]) == 0
