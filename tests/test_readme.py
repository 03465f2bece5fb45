"""The README's commands, typed as a new user types them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines import build as engines_build
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.plans.bundle_plans import plan_job
from engines.plans.forecast import forecast
from engines.tensorrt.target import plan_target
from mini.probes import answers, open_probes, setting_view
from mini.world import SCENES
from tests.paths import ROOT

VERIFY = ["-m", "engines.verify", "bundle"]


def readme_commands(first_word: str) -> list[str]:
    """The README's commands that start with a word, as a shell takes them."""
    joined = (ROOT / "README.md").read_text().replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.startswith(f"    {first_word}")]


def _check_plans(bundle: Path, plans: list[PlanRecord]) -> None:
    """Seven plans of NVIDIA's own builder, each proved by its own log."""
    assert {plan.spec.component for plan in plans} == set(Component)
    assert len(plans) == 8, "SDM has one for each number of passes"
    for plan in plans:
        proofs = plan.built.proofs
        assert proofs.layers is not None and proofs.attention is not None
        assert proofs.layers.half_layers == proofs.layers.compute_layers > 0
        assert proofs.network.single == proofs.network.sinusoids
        if plan.spec.component is Component.VAE_DECODER:
            assert len(proofs.attention.unfused) == proofs.attention.nodes == 1
        else:
            assert proofs.attention.fused == proofs.attention.nodes
        assert plan.built.device_memory_nbytes > 1 << 20
        assert (plan.built.parity, plan.built_on.gpu) == (None, None), "executed nowhere"
        header = (bundle / plan.spec.path).read_bytes()[:64]
        assert ".".join(map(str, header[24:28])) == plan.spec.version
        assert int.from_bytes(header[16:24], "little") == plan.built.file.nbytes
        # What a forecast estimates of a plan before there is any, from the sizes of its model.
        estimated = forecast(plan_job(Bundle.open(bundle), plan.spec), plan_target())
        found = plan.built.device_memory_nbytes
        assert estimated.activations_nbytes == pytest.approx(found, rel=0.25)


def _check_further_builds(bundle: Path, plans: list[PlanRecord]) -> None:
    """A repeated build keeps all, one more size is added, and plans alone are left on demand."""
    assert engines_build.main([str(bundle), "--profile", "native"]) == 0
    assert Bundle.open(bundle).manifest.plans == plans
    # Its attention is not fused: with open sizes the library must be allowed that.
    assert (
        engines_build.main([str(bundle), "--profile", "sizes", "--component", "vae_decoder"]) == 0
    )
    (further,) = [each for each in Bundle.open(bundle).manifest.plans if each not in plans]
    assert not further.spec.is_static and further.built.proofs.attention is not None
    assert len(further.built.proofs.attention.unfused) == 1
    assert engines_build.main([str(bundle), "--plans-only"]) == 0
    assert not (bundle / "onnx").exists()
    assert Bundle.open(bundle).verify() > len(plans)


@pytest.mark.slow
def test_the_commands_of_the_readme_end_in_pictures(tmp_path: Path) -> None:
    """Builds, draws and verifies the shipped model as a new user types it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    readme = (ROOT / "README.md").read_text()
    (python_example,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(command) for command in readme_commands("python -m")]
    build, draw = commands[:2]
    assert build[2:] == ["export.build", "--fp16"]
    assert draw[2] == "runtime"
    for command in (build[1:], draw[1:], ["-c", python_example], VERIFY):
        finished = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.manifest.precision is Precision.FP16
    for record in opened.manifest.components.values():
        assert all(figures.relative_l2 <= figures.bound for figures in record.parity.values())
    if find_spec("tensorrt_rtx") is not None:
        _check_plans(tmp_path / "bundle", opened.manifest.plans)
        _check_further_builds(tmp_path / "bundle", opened.manifest.plans)
    _, setting = open_probes()
    for path in ("bundle/preview.png", "park.png", "reading.png"):
        with Image.open(tmp_path / path) as picture:
            told = answers(setting, [setting_view(np.asarray(picture))])
        assert tuple(SCENES)[told["scene"][0]] == "park"
