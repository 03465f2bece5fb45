"""Where a GPU is required nothing passes by being skipped, and nothing of an export is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.conftest import REQUIRE
from tests.paths import ROOT

# Blocks what a machine that only runs bundles has not, then runs the GPU tests there are.
_WITHOUT_EXPORT_STACK = """
import sys, pytest
for name in ("torch", "triton", "diffusers", "transformers", "onnx", "cuda"):
    sys.modules[name] = None  # importing it now raises ImportError
sys.exit(pytest.main(sys.argv[1:]))
"""


no_gpu = pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="here is a GPU")


@pytest.mark.slow
@no_gpu
@pytest.mark.parametrize("marker", ["gpu", "torch_cuda"])
@pytest.mark.parametrize(("required", "code", "told"), [("0", 0, "skipped"), ("1", 1, "error")])
def test_a_skip_is_a_failure_where_a_gpu_is_required(
    marker: str, required: str, code: int, told: str
) -> None:
    words = ["tests/gpu", "-m", marker, "-n", "0", "-q", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXPORT_STACK, *words],
        cwd=ROOT, env=os.environ | {REQUIRE: required}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = finished.stdout.strip().splitlines()[-1]
    assert finished.returncode == code, finished.stdout
    assert told in last
    assert "passed" not in last
    if required == "1":
        assert "skipped" not in last
        assert f"was skipped, and {REQUIRE}=1" in finished.stdout
        assert "needs cuda-bindings" in finished.stdout


@pytest.mark.slow
@no_gpu
def test_the_one_command_of_the_first_day_fails_where_there_is_no_gpu_and_keeps_what_was_said(
    tmp_path: Path,
) -> None:
    words = [ROOT / ".ci/gpu", tmp_path / "bundle", tmp_path / "out"]
    finished = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 1, finished.stderr
    said = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.txt")}
    assert said.keys() == {"doctor.txt", "tests.txt", "benchmarks.txt"}
    assert "was skipped, and FACE_DIFFUSER_REQUIRE_GPU=1" in said["tests.txt"]
    assert "there is no NVIDIA GPU here" in said["benchmarks.txt"]
