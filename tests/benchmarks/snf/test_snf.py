"""The benchmarks' command line, their records, and the PyTorch they compare with."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks.harness.options import Options
from benchmarks.harness.record import header_of
from benchmarks.measures import cubins
from benchmarks.schema import results as results_of
from benchmarks.schema.cubins import CubinsRecord
from benchmarks.snf import eager
from engines.guides import GuidanceRule
from tests.kernels.trial import SCALE, Data, trial
from tests.references import pixels, snf
from tests.references.scheduler import Steps


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results_of, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def measuring_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for compiling every kernel."""

    def measure(options: Options) -> CubinsRecord:
        return CubinsRecord(header=header_of("cubins", options, gpu=None), rows=())

    monkeypatch.setattr(cubins, "MEASURE", replace(cubins.MEASURE, measure=measure))


def test_eager_pytorch_is_the_released_fusion() -> None:
    case = trial(Data.CORRELATED, (2, 24, 40), dtype=torch.float32, rule=GuidanceRule.RELEASED)
    noise, mask = eager.fused(case.tdm.double(), case.sdm.double(), SCALE)
    expected = snf.snf(*case.guided())
    # Double precision on both sides: only a pixel tied to within 1e-12 could differ.
    decided = np.abs(expected.margin) > 1e-12
    assert (mask.numpy() == expected.mask)[decided].all()
    np.testing.assert_allclose(noise.numpy(), expected.noise, rtol=0, atol=1e-12)


def test_eager_pytorch_steps_like_ddim() -> None:
    alphas = np.array([0.9, 0.5])
    latents, noise = np.random.default_rng(0).standard_normal((2, 1, 4, 8, 8))
    expected = Steps(alphas, [1], spacing=1).ddim(0, latents, noise)
    found = eager.ddim_step(torch.from_numpy(latents), torch.from_numpy(noise), 0.5, 0.9)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_eager_pytorch_gives_the_same_bytes() -> None:
    decoded = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    expected = pixels.pixels(decoded.double().numpy())
    assert (eager.pixels(decoded.double()).numpy() == expected).all()


@pytest.mark.usefixtures("measuring_nothing")
def test_records_are_appended(results: Path) -> None:
    assert command_line.main(["cubins"]) == 0
    assert command_line.main(["cubins", "--quick"]) == 0
    lines = (results / "cubins.jsonl").read_text().splitlines()
    assert [json.loads(line)["quick"] for line in lines] == [False, True]
    assert json.loads(lines[0])["machine"]["gpu"] is None


@pytest.mark.usefixtures("measuring_nothing", "results")
def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["cubins", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == "cubins"


def test_an_unknown_name_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command_line.main(["nothing"])
    assert exited.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_kernels_are_not_timed(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["kernels"]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err.splitlines()[-1]
    (line,) = (results / "kernels.jsonl").read_text().splitlines()
    assert (json.loads(line)["status"], json.loads(line)["rows"]) == ("skipped", [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_kernels_are_right_on_this_gpu_and_timed(results: Path) -> None:
    """Runs in a process of its own: here the kernels are interpreted."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks", "kernels", "--quick", "--json"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["rows"]
