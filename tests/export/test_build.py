"""The build: kill and resume, nothing rebuilt without need, nothing half-made published."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engines.bundle import swap
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.contract import Component
from engines.plans.bundle_plans import PlanRequest, build_plans
from export.build import main
from export.checkpoint.checkpoint import Checkpoint, Sources
from export.checkpoint.model_facts import dimensions_of
from export.checks.disk_space import (
    DiskSpaceError,
    require_disk_space,
    told_size,
    weight_elements,
)
from export.checks.parity import GateCase, ParityError, measured_parity
from export.graph.lint import LintError, lint, polygraphy_lint
from tests.doubles.plan_builds import Builds, Said
from tests.engines.conftest import TARGET
from tests.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
PARTS = ["--base", str(GOLDEN / "base"), "--tdm", str(GOLDEN / "TDM"), "--sdm", str(GOLDEN / "SDM")]
PARTS += ["--image-encoder", str(GOLDEN / "image_encoder"), "--architectures"]


def test_a_killed_build_resumes_and_keeps_what_was_finished(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unets = PlanRequest(components=(Component.TDM_UNET, Component.SDM_UNET))
    build_plans(bundle_copy, TARGET, unets, Said(), lambda *_: None, Builds())
    record = bundle_copy / "build" / "image_encoder.json"
    record.unlink()
    kept = (bundle_copy / "onnx" / "tdm_unet.onnx").stat().st_mtime_ns
    arguments = ["--fp32", *PARTS, "--out", str(bundle_copy)]
    command = [sys.executable, "-m", "export.build", *arguments]
    build = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert build.stderr is not None
    for line in build.stderr:
        if "exporting to ONNX" in line:
            build.send_signal(signal.SIGKILL)
            break
    build.wait()
    build.stderr.close()
    assert Bundle.open(bundle_copy).verify() > 0  # what was there works as before
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    assert main(arguments) == 0
    bundle = Bundle.open(bundle_copy)
    assert bundle.verify() > 0
    assert {plan.spec.component for plan in bundle.manifest.plans} == set(unets.components)
    (told,) = (line for line in capsys.readouterr().err.splitlines() if "ONNX here" in line)
    assert told.endswith(f"python -m engines.build {bundle_copy}")
    assert record.is_file()
    assert (bundle_copy / "onnx" / "tdm_unet.onnx").stat().st_mtime_ns == kept
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_a_drifting_graph_is_refused_by_name(golden_bundle: Path) -> None:
    path = golden_bundle / "onnx" / "fusion_mlp.onnx"
    inputs = {
        "text_embeds": torch.ones(1, 77, 32),
        "token_subject_embeds": torch.ones(1, 77, 32),
        "subject_token_mask": torch.ones(1, 77, dtype=torch.bool),
    }
    case = GateCase(inputs, np.ones((1, 77, 32), np.float32))
    with pytest.raises(ParityError, match="fusion_mlp"):
        measured_parity(path, Component.FUSION_MLP, [case], bound=1e-4)


def test_the_lint_names_the_node(golden_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden_bundle / "onnx", tmp_path / "onnx"))
    path = folder / "fusion_mlp.onnx"
    model = onnx.load(path, load_external_data=False)
    lint(path, Precision.FP32)
    with pytest.raises(LintError, match="does not compute in fp16"):
        lint(path, Precision.FP16)
    node = model.graph.node[0]
    node.op_type, node.domain = "FusedMatMul", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    with pytest.raises(LintError, match=f"{node.name} is com.microsoft::FusedMatMul"):
        lint(path, Precision.FP32)


def test_polygraphy_passes_a_graph_and_names_a_broken_node(
    golden_bundle: Path, tmp_path: Path
) -> None:
    """Without the weights file: their shapes are all that it needs."""
    path = tmp_path / "fusion_mlp.onnx"
    model = onnx.load(golden_bundle / "onnx" / path.name, load_external_data=False)
    onnx.save(model, path)
    polygraphy_lint(path)
    node = next(node for node in model.graph.node if node.op_type == "MatMul")
    node.op_type = "NoSuchOperator"
    onnx.save(model, path)
    with pytest.raises(LintError, match=f"{node.name}: No Op registered for NoSuchOperator"):
        polygraphy_lint(path)


def test_a_folder_that_is_no_bundle_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("keep me")
    assert main([*PARTS, "--out", str(tmp_path)]) == 1
    assert "no bundle" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_build_that_would_not_fit_the_disk_is_refused_before_it_writes(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle_copy / "build" / "sdm_unet.json").unlink()
    (bundle_copy / "build" / "lock").touch()
    before = sorted(bundle_copy.rglob("*"))
    usage = shutil.disk_usage(bundle_copy)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    assert main(["--fp32", *PARTS, "--out", str(bundle_copy)]) == 1
    assert "has 0.01 GB free" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(bundle_copy.rglob("*")) == before


@pytest.mark.parametrize("component", Component)
def test_the_forecast_is_what_the_weights_take(golden_bundle: Path, component: Component) -> None:
    source = Checkpoint.open(
        Sources(base=PARTS[1], tdm=PARTS[3], sdm=PARTS[5], image_encoder=PARTS[7])
    )
    elements = weight_elements(component, source.config(component), dimensions_of(source))
    written = (golden_bundle / "onnx" / f"{component}.data").stat().st_size
    # Small tensors live in the graph, and the exporter writes some constants of its own.
    assert written == pytest.approx(4 * elements, rel=0.2)


def test_8_bits_beside_half_precision_are_in_the_size_that_is_told_and_in_the_room_asked_for(
    golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dimensions = Bundle.open(golden_bundle).manifest.dimensions
    weights = dict.fromkeys(Component, 1 << 30)
    assert told_size(weights, dimensions, None) == (
        "the bundle takes about 6.46 GB: ONNX models without plans"
    )
    assert told_size(weights, dimensions, None, quantizations=2) == (
        "the bundle takes about 9.04 GB: ONNX models without plans"
    )
    free = 2 * weights[Component.TDM_UNET]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
    require_disk_space(tmp_path, weights, [])
    require_disk_space(tmp_path, weights, [], quantizations=1)
    with pytest.raises(DiskSpaceError, match=r"writes 2\.59 GB to .*2\.15 GB free"):
        require_disk_space(tmp_path, weights, [], quantizations=2)


def test_a_refused_rebuild_leaves_the_good_bundle_as_it_was(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Bundle.open(bundle_copy).manifest.digest()

    def drifts(*_: object, **__: object) -> None:
        raise ParityError("it drifts")

    monkeypatch.setattr("export.bundle.build_component", drifts)
    assert main(["--fp16", *PARTS, "--out", str(bundle_copy)]) == 1
    bundle = Bundle.open(bundle_copy)
    assert bundle.manifest.digest() == before
    assert bundle.verify() > 0


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_finished_folder_takes_the_bundles_place(
    exchanges: bool,  # noqa: FBT001
    bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not exchanges:
        monkeypatch.setattr("engines.bundle.swap._exchanged", lambda *_: False)
    beside = swap.folder_beside(bundle_copy)
    swap.seed(bundle_copy, beside)
    assert not (beside / "manifest.json").exists()
    shutil.copy(bundle_copy / "manifest.json", beside)
    (beside / "new").touch()
    swap.swap(bundle_copy, beside)
    assert Bundle.open(bundle_copy).verify() > 0
    assert (bundle_copy / "new").is_file()
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]
