"""NVIDIA's own builder, TensorRT for RTX, on a machine without a GPU: plans, proofs, refusals.

Nothing stands in for the library here. It builds without a GPU; nothing of this executes a plan.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import build as engines_build
from engines import verify
from engines.bundle.files import file_record
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.bundle.plan_record import AttentionFusion, BuiltPlan, PlanOptions, ToldBy
from engines.cli.progress import JsonDisplay, PhaseEvent
from engines.contract import Component
from engines.errors import (
    BundleCorruptError,
    PlanBuildError,
    PlanMemoryError,
    PlanRefusedError,
    PlanUnsupportedError,
    ProviderUnavailableError,
)
from engines.plans import here
from engines.plans.building import plan_from_onnx as plan_from_onnx_module
from engines.plans.building.build_log import BuildLog
from engines.plans.building.child import plan_in_process
from engines.plans.building.job import PlanJob
from engines.plans.building.monitor import Cancellation, progress_monitor
from engines.plans.building.plan_from_onnx import Built, plan_from_onnx
from engines.plans.building.worker import proofs_of_log
from engines.plans.bundle_plans import PlanRequest, plan_job, plan_specs
from engines.plans.proofs.attention import proven_attention
from engines.plans.proofs.layers import layers_of_log
from engines.plans.proofs.precision import proven_layers
from engines.tensorrt.libraries import TENSORRT_RTX
from engines.tensorrt.library import load, logger
from engines.tensorrt.loader import engine_from_plan
from engines.tensorrt.target import plan_target
from tests.paths import ROOT

pytest.importorskip("tensorrt_rtx")

NAMES = [
    "text_encoder.fixed.rtx-1.7", "image_encoder.fixed.rtx-1.7", "fusion_mlp.fixed.rtx-1.7",
    "tdm_unet.native.rtx-1.7", "sdm_unet.native-1-pass.rtx-1.7",
    "sdm_unet.native-2-passes.rtx-1.7", "sdm_unet.native-3-passes.rtx-1.7",
    "vae_decoder.native.rtx-1.7",
]  # fmt: skip
RTX = ["--library", "tensorrt-rtx"]
TOKENS, WIDTH = 77, 8


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, small_bundle: Path) -> Path:
    """The small bundle with its plans, built once; to be read only."""
    path = tmp_path_factory.mktemp("rtx") / "bundle"
    shutil.copytree(small_bundle, path)
    assert engines_build.main([str(path), *RTX]) == 0
    return path


@pytest.fixture
def unbuilt(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def _job(bundle: Path, component: Component, **options: Any) -> PlanJob:
    opened = Bundle.open(bundle, plans=False)
    request = PlanRequest(components=(component,), options=PlanOptions(**options))
    *_, spec = plan_specs(opened, plan_target(TENSORRT_RTX.name), request)
    return plan_job(opened, spec)


def _build(job: PlanJob, heard: list[PhaseEvent] | None = None) -> BuiltPlan:
    return plan_in_process(job, (heard if heard is not None else []).append)


# What a build leaves.


def test_every_component_has_a_plan_that_nvidias_builder_proved(built: Path) -> None:
    manifest = Bundle.open(built).manifest
    assert sorted(plan.spec.name for plan in manifest.plans) == sorted(NAMES)
    for plan in manifest.plans:
        proofs, on = plan.built.proofs, plan.built_on
        assert proofs.layers is not None and proofs.attention is not None
        assert proofs.layers.told_by is ToldBy.BUILD_LOG
        assert proofs.layers.half_layers == proofs.layers.compute_layers
        assert proofs.network.single == proofs.network.sinusoids
        assert plan.built.weights_nbytes is not None and plan.built.device_memory_nbytes > 0
        assert (plan.built.parity, on.gpu, on.driver) == (None, None, None), "executed on no GPU"
        assert on.host
        header = (built / plan.spec.path).read_bytes()[:64]
        assert header[:4] == b"vtrt"
        assert ".".join(map(str, header[24:28])) == plan.spec.version
        assert int.from_bytes(header[16:24], "little") == plan.built.file.nbytes
    sinusoids = {
        plan.spec.component: plan.built.proofs.network.sinusoids for plan in manifest.plans
    }
    assert sinusoids[Component.TEXT_ENCODER] == 0


def test_a_repeated_build_keeps_every_plan_and_an_anew_one_gives_the_same_bytes(
    built: Path, unbuilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    assert engines_build.main([str(built), *RTX, "--json"]) == 0
    assert time.monotonic() - started < 3
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["built"], sorted(outcome["kept"])) == ([], sorted(NAMES))
    assert engines_build.main([str(unbuilt), *RTX, "--component", "fusion_mlp", "tdm_unet"]) == 0
    before = {plan.spec.name: plan.built.file for plan in Bundle.open(built).manifest.plans}
    again = {plan.spec.name: plan.built.file for plan in Bundle.open(unbuilt).manifest.plans}
    assert len(again) == 2
    assert all(before[name] == file for name, file in again.items())
    assert verify.main([str(built)]) == 0


def test_a_forecast_tells_the_hosts_memory_and_what_is_known_of_the_plans(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engines_build.main([str(built), *RTX, "--forecast-only", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert min(told["expected_nbytes"].values()) > 300 << 20
    known = told["known"]["tdm_unet.native.rtx-1.7"]
    assert known["device_memory_nbytes"] > 0 and known["weights_nbytes"] > 0
    assert "of the host's memory" in captured.err


def test_a_forecast_before_a_build_tells_estimates_and_room_and_builds_nothing(
    unbuilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(unbuilt), *RTX, "--forecast-only", "--plans-only", "--json"]
    assert engines_build.main(words) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (sorted(told["estimated"]), told["known"]) == (sorted(NAMES), {})
    assert sorted(told["plan_nbytes"]) == sorted(NAMES)
    for words_told in (
        "an estimated", "8 plans add about", "of ONNX models", "gives up drawing on CPUs",
    ):  # fmt: skip
        assert words_told in captured.err
    assert not (unbuilt / "plans").exists() and (unbuilt / "onnx").exists()


def test_an_architecture_is_built_for_alone_where_it_is_named(unbuilt: Path) -> None:
    words = ["--architecture", "75", "--component", "fusion_mlp"]
    assert engines_build.main([str(unbuilt), *words]) == 0
    (plan,) = Bundle.open(unbuilt).manifest.plans
    assert plan.spec.name == "fusion_mlp.fixed.rtx-1.7.sm_75"
    capabilities = int.from_bytes((unbuilt / plan.spec.path).read_bytes()[32:36], "little")
    assert capabilities == 1, "the header's bit of 7.5, and no other"


def test_a_build_without_a_gpu_is_the_default_where_there_is_none(unbuilt: Path) -> None:
    target = plan_target()
    assert (target.library, target.gpu) == (TENSORRT_RTX, None)


# Graphs that are wrong on purpose: each gate is seen to refuse one, and nothing is published.


@pytest.fixture(scope="module")
def session() -> Iterator[_Session]:
    """One logger: the library keeps to the first that a process gave it."""
    yield _Session()


class _Session:
    """Builds in this process, with what a worker does not let by."""

    def __init__(self) -> None:
        self.trt = load(TENSORRT_RTX)
        self.log = BuildLog(file=io.StringIO())
        self.logger = logger(self.trt, self.log.hear, self.log.hear_verbose)

    def build(self, job: PlanJob) -> Built:
        for kept in (self.log.errors, self.log.messages, self.log.verbose):
            kept.clear()
        monitor = progress_monitor(self.trt, lambda *_: None, Cancellation())
        return plan_from_onnx(self.trt, self.logger, self.log, job, monitor)


def _text_encoder(path: Path, width: int, nodes: Any, weights: dict[str, Any]) -> None:
    """A text encoder of so many channels over an embedding of its ids, called `embeds`."""
    table = np.random.RandomState(0).standard_normal((256, width)).astype(np.float16)
    weights = {"table": table} | weights
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["embeds"], "node_table"), *nodes],
        "text_encoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["n", TOKENS])],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT16, ["n", TOKENS, width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    model.ir_version = 11
    onnx.save(model, path)


def _in_single(path: Path) -> None:
    """Two products of matrices in float32 between half-precision tensors."""
    random = np.random.RandomState(0)
    weights = {name: random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in "ab"}
    nodes = [
        helper.make_node("Cast", ["embeds"], ["wide"], "node_wide", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["wide", "a"], ["first"], "node_first"),
        helper.make_node("Sigmoid", ["first"], ["bent"], "node_bent"),
        helper.make_node("MatMul", ["bent", "b"], ["second"], "node_second"),
        helper.make_node("Cast", ["second"], ["text_embeds"], "node_back", to=TensorProto.FLOAT16),
    ]
    _text_encoder(path, WIDTH, nodes, weights)


def _attending(path: Path, width: int) -> None:
    """One head of attention, as wide as the embeds."""
    random = np.random.RandomState(0)
    weights: dict[str, Any] = {"axis": np.array([1])}
    nodes = []
    for name in "qkv":
        values = random.standard_normal((width, width)) / np.sqrt(width)
        weights[f"of_{name}"] = values.astype(np.float16)
        inputs = ["embeds", f"of_{name}"]
        nodes.append(helper.make_node("MatMul", inputs, [name], f"node_{name}"))
        nodes.append(helper.make_node("Unsqueeze", [name, "axis"], [f"{name}1"], f"node_{name}1"))
    nodes.append(helper.make_node("Attention", ["q1", "k1", "v1"], ["seen"], "node_attention"))
    nodes.append(helper.make_node("Squeeze", ["seen", "axis"], ["text_embeds"], "node_seen"))
    _text_encoder(path, width, nodes, weights)


def test_a_network_with_a_product_in_single_precision_is_refused(unbuilt: Path) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    _in_single(job.onnx)
    with pytest.raises(PlanRefusedError, match=r"not in half precision: 4 tensors .*node_wide"):
        _build(job)
    assert not job.plan.exists()


def test_built_layers_in_single_precision_are_refused_whatever_the_network_said(
    unbuilt: Path, session: _Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    _in_single(job.onnx)
    monkeypatch.setattr(plan_from_onnx_module, "proven_network", lambda *_: None)
    session.build(job)
    layers = layers_of_log(session.log.verbose)
    with pytest.raises(PlanRefusedError, match=r"did not come out in half .*\(build log\)"):
        proven_layers(layers, ToldBy.BUILD_LOG, job)


def test_attention_without_a_fused_layer_is_refused_by_name(
    unbuilt: Path, session: _Session
) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    _attending(job.onnx, 64)
    built = session.build(job)
    layers = layers_of_log(session.log.verbose)
    assert built.attention == ["node_attention"]
    assert proven_attention(built.attention, layers, job) == AttentionFusion(nodes=1, fused=1)
    unfused = [layer for layer in layers if not layer.is_attention]
    with pytest.raises(PlanRefusedError, match=r"1 of its 1 attentions without .*node_attention"):
        proven_attention(built.attention, unfused, job)
    spec = replace(job.spec, component=Component.VAE_DECODER)
    excepted = proven_attention(built.attention, unfused, replace(job, spec=spec))
    assert excepted.unfused == ("node_attention",), "the decoder's one head, and it is named"


def test_an_engine_that_does_not_fuse_its_attention_is_refused_by_name(
    unbuilt: Path, session: _Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    _attending(job.onnx, 512)
    # As if this component's attention might be several layers, which the library then makes of it.
    monkeypatch.setattr(plan_from_onnx_module, "MAY_BE_UNFUSED", tuple(Component))
    built = session.build(job)
    with pytest.raises(PlanRefusedError, match=r"1 of its 1 attentions without .*node_attention"):
        proofs_of_log(job, built, session.log)


def test_what_the_library_prints_past_its_logger_goes_to_the_plans_log(
    unbuilt: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    _attending(job.onnx, 512)
    with pytest.raises(PlanUnsupportedError):
        _build(job)
    printed = [line for line in job.log.read_text().splitlines() if "Internal Error" in line]
    assert any(line.startswith("Internal Error: Myelin") for line in printed), "by the library"
    assert "Myelin" not in "".join(capfd.readouterr())


def test_a_head_too_wide_for_any_fused_kernel_is_the_librarys_own_refusal(unbuilt: Path) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    _attending(job.onnx, 512)
    with pytest.raises(PlanUnsupportedError, match="has no fused attention for heads of this"):
        _build(job)
    assert not job.plan.exists()


def test_an_export_of_a_model_that_the_library_does_not_build_stops_at_onnx(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise PlanUnsupportedError("heads of 4 are not supported by a dedicated kernel")

    monkeypatch.setattr(here, "build_here", unsupported)
    stream = io.StringIO()
    build = partial(
        here.build_if_possible, unbuilt, display=JsonDisplay(stream), draw=engines_build.draw
    )
    assert build(request=PlanRequest()) is None
    assert "stops at ONNX here, without plans: heads of 4" in stream.getvalue()
    with pytest.raises(PlanUnsupportedError):
        build(request=PlanRequest(library=TENSORRT_RTX.name))


def test_a_build_whose_log_tells_no_layers_proves_nothing(unbuilt: Path, session: _Session) -> None:
    job = _job(unbuilt, Component.FUSION_MLP)
    built = session.build(job)
    assert proofs_of_log(job, built, session.log).layers is not None
    session.log.messages.clear()
    with pytest.raises(PlanRefusedError, match="tells no layers or sizes"):
        proofs_of_log(job, built, session.log)


# Errors as users meet them.


def test_mixed_types_are_told_with_their_node(unbuilt: Path) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    weight = np.ones(WIDTH, np.float32)
    mixed = helper.make_node("Add", ["embeds", "weight"], ["text_embeds"], "mixed_add")
    _text_encoder(job.onnx, WIDTH, [mixed], {"weight": weight})
    expected = r"cannot read .*text_encoder\.onnx: node 1 mixed_add \(Add\).*Half and Float"
    with pytest.raises(PlanBuildError, match=expected):
        _build(job)


def test_an_unknown_operator_is_told_with_its_node_and_no_older_opset(unbuilt: Path) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    unknown = helper.make_node("Unheard", ["embeds"], ["text_embeds"], "node_unheard")
    _text_encoder(job.onnx, WIDTH, [unknown], {})
    with pytest.raises(PlanBuildError, match=r"node_unheard \(Unheard\)") as told:
        _build(job)
    assert told.value.fix is None


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_missing_or_short_weights_file_is_named(share: float, unbuilt: Path) -> None:
    job = _job(unbuilt, Component.FUSION_MLP)
    weights = job.onnx.with_suffix(".data")
    content = weights.read_bytes()
    weights.unlink()
    if share:
        weights.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PlanBuildError, match=r"fusion_mlp\.data") as told:
        _build(job)
    assert "driver" not in str(told.value)


def test_a_profile_that_does_not_fit_gives_the_first_reason(unbuilt: Path) -> None:
    job = _job(unbuilt, Component.TEXT_ENCODER)
    low, high = (1, 70), (3, 70)
    spec = replace(job.spec, shapes=({"input_ids": (low, low, high)},))
    with pytest.raises(PlanBuildError, match=r"built nothing: .*input_ids") as told:
        _build(replace(job, spec=spec))
    assert "driver" not in str(told.value)


def test_too_little_workspace_is_known_as_memory(unbuilt: Path) -> None:
    with pytest.raises(PlanMemoryError, match="workspace"):
        _build(_job(unbuilt, Component.FUSION_MLP, workspace_mib=1))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--architecture", "90"], "75, 80, 86, 89, 120, 121, got 90; H100, H200 and B200 are"),
        (["--library", "tensorrt", "--architecture", "89"], "for the GPU that is at hand"),
        ([*RTX, "--optimization-level", "5"], "builds the same plan at every level"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_starts(
    words: list[str], reason: str, unbuilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        engines_build.main([str(unbuilt), *words])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (unbuilt / "build" / "plans").exists()


def test_a_model_in_single_precision_names_the_export(
    unbuilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Bundle.open(unbuilt).manifest
    single = replace(manifest, precision=Precision.FP32)
    (unbuilt / "manifest.json").write_text(single.to_json())
    assert engines_build.main([str(unbuilt), *RTX]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "no attention in single precision" in told and "--fp16" in told


def test_a_whole_plan_without_a_driver_is_no_damaged_plan(built: Path, session: _Session) -> None:
    plan = (built / "plans" / "fusion_mlp.fixed.rtx-1.7.plan").read_bytes()
    open_plan = partial(engine_from_plan, TENSORRT_RTX, session.trt, session.logger)
    with pytest.raises(ProviderUnavailableError, match=r"1\.7.*finds no GPU or driver.*nvidia-smi"):
        open_plan(plan, "fusion")
    for foreign in (b"not a plan at all" * 100, b"\x00" * 4096, plan[:40]):
        with pytest.raises(BundleCorruptError, match="does not take the plan fusion: it is dam"):
            open_plan(foreign, "fusion")


def test_a_truncated_plan_is_known_before_the_library_sees_it(built: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(built, tmp_path / "bundle"))
    plan = path / "plans" / "tdm_unet.native.rtx-1.7.plan"
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(BundleCorruptError, match=r"tdm_unet.* bytes.*engines\.build"):
        Bundle.open(path)
    bundle = Bundle.open(path, plans=False)
    for record in bundle.manifest.plans:
        if record.spec.component is Component.TDM_UNET:
            with pytest.raises(
                BundleCorruptError, match=r"not whole or was altered.*engines\.build"
            ):
                bundle.plan(record)
    assert engines_build.main([str(path), *RTX]) == 0
    assert Bundle.open(path).verify() > 19


# Cancelled, killed, resumed.


def _deep(path: Path) -> None:
    """A text encoder whose building takes some seconds, nearly all of them without a word."""
    random = np.random.RandomState(1)
    nodes, weights, name, before = [], {}, "embeds", WIDTH
    for layer in range(360):
        last = layer == 359
        width = WIDTH if last else WIDTH + 8 * (layer % 40)
        weights[f"w{layer}"] = random.standard_normal((before, width)).astype(np.float16)
        nodes.append(helper.make_node("MatMul", [name, f"w{layer}"], [f"m{layer}"], f"m_{layer}"))
        name, before = "text_embeds" if last else f"s{layer}", width
        kind = ("Sigmoid", "Tanh", "Softplus")[layer % 3]
        nodes.append(helper.make_node(kind, [f"m{layer}"], [name], f"s_{layer}"))
    _text_encoder(path, WIDTH, nodes, weights)


@pytest.fixture
def slow_command(unbuilt: Path) -> list[str]:
    """A build that takes long enough to be stopped in, of a bundle that says so."""
    manifest = Bundle.open(unbuilt).manifest
    onnx_path = unbuilt / "onnx" / "text_encoder.onnx"
    _deep(onnx_path)
    component = manifest.components[Component.TEXT_ENCODER]
    files = component.files | {"onnx/text_encoder.onnx": file_record(onnx_path)}
    components_there = manifest.components | {
        Component.TEXT_ENCODER: replace(component, files=files)
    }
    changed = replace(manifest, components=components_there)
    (unbuilt / "manifest.json").write_text(changed.to_json())
    components = ["--component", "text_encoder", "fusion_mlp"]
    return [sys.executable, "-m", "engines.build", str(unbuilt), *RTX, *components]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_stopped_in_silence_leaves_nothing_half_made_and_resumes(
    how: signal.Signals, slow_command: list[str], unbuilt: Path
) -> None:
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        slow_command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    ) as build:
        assert build.stderr is not None
        for line in build.stderr:
            # The first word after a second; the next comes when the plan is built.
            if '"event": "progress"' in line:
                break
        build.send_signal(how)
        started = time.monotonic()
        rest = build.stderr.read()
        build.wait()
        took_s = time.monotonic() - started
    if how is signal.SIGINT:
        assert took_s < 1
        assert "interrupted; the same command resumes" in rest.splitlines()[-1]
    staging = unbuilt / "build" / "plans"
    assert not list(staging.glob("text_encoder*.plan"))
    Bundle.open(unbuilt)
    assert engines_build.main(slow_command[3:]) == 0
    assert len(Bundle.open(unbuilt).manifest.plans) == 2
    assert Bundle.open(unbuilt).verify() == 21


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_build_that_was_killed_anywhere_ends_in_the_same_bytes(
    share: float, built: Path, unbuilt: Path
) -> None:
    components = ["text_encoder", "fusion_mlp", "vae_decoder"]
    command = [
        sys.executable,
        "-m",
        "engines.build",
        str(unbuilt),
        *RTX,
        "--component",
        *components,
    ]
    expected = {plan.spec.name: plan.built for plan in Bundle.open(built).manifest.plans}
    planned = [each for name, each in expected.items() if name.split(".")[0] in components]
    seconds = share * sum(each.build_s for each in planned)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr is not None
        build.stderr.readline()
        time.sleep(seconds)
        build.kill()
    Bundle.open(unbuilt)
    assert engines_build.main(command[3:]) == 0
    bundle = Bundle.open(unbuilt)
    assert len(bundle.manifest.plans) == 3
    assert all(plan.built.file == expected[plan.spec.name].file for plan in bundle.manifest.plans)
    assert not list(unbuilt.rglob("*.partial"))
