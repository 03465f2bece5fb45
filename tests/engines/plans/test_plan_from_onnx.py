"""From ONNX to a plan, in one process with the double: every answer of TensorRT is looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.bundle.plan_record import LayerPrecision, PlanOptions, PlanParity, ToldBy
from engines.bundle.records import from_json, to_json
from engines.contract import Component
from engines.cuda.driver import driver
from engines.cuda.gpu import opened_gpu
from engines.errors import (
    BundleCorruptError,
    PlanBuildError,
    PlanMemoryError,
    PlanRefusedError,
    ProviderUnavailableError,
)
from engines.gate import bound_of
from engines.plans.building.job import PlanJob
from engines.plans.building.monitor import Cancellation, PlanCancelledError, progress_monitor
from engines.plans.building.plan_from_onnx import plan_from_onnx
from engines.plans.bundle_plans import PlanRequest, plan_job, plan_specs
from engines.plans.proofs.layers import layers_of_inspector
from engines.plans.proofs.parity import plan_parity
from engines.plans.proofs.precision import inspected_layers, proven_layers
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.libraries import TENSORRT
from engines.tensorrt.library import ErrorLog, load, logger
from engines.tensorrt.loader import engine_from_plan
from tests.doubles.tensorrt_names import unpacked
from tests.engines.conftest import TARGET, SetUp


def _job(bundle: Path, component: Component, profile: str = "native", **options: Any) -> PlanJob:
    """A component's job; of a profile with several plans, the last."""
    request = PlanRequest(
        components=(component,), profiles=(profile,), options=PlanOptions(**options)
    )
    opened = Bundle.open(bundle)
    *_, spec = plan_specs(opened, TARGET, request)
    return plan_job(opened, spec)


class _Session:
    """What a build worker holds."""

    def __init__(self) -> None:
        self.log = ErrorLog()
        self.messages: list[str] = []
        self.events: list[tuple[Any, ...]] = []
        self.cancellation = Cancellation()
        self.trt = load(TENSORRT)
        self.logger = logger(self.trt, self._sink)

    def build(self, job: PlanJob) -> bytes:
        monitor = progress_monitor(self.trt, self._tell, self.cancellation)
        return plan_from_onnx(self.trt, self.logger, self.log, job, monitor).plan

    def precision(self, job: PlanJob) -> LayerPrecision | None:
        engine = engine_from_plan(TENSORRT, self.trt, self.logger, self.build(job), job.name)
        return proven_layers(inspected_layers(self.trt, engine, job), ToldBy.INSPECTOR, job)

    def parity(self, job: PlanJob) -> PlanParity:
        with opened_gpu(driver()) as gpu:
            deserialized = engine_from_plan(
                TENSORRT, self.trt, self.logger, self.build(job), job.name
            )
            engine = TensorRtEngine(job.spec.component, self.trt, deserialized)
            try:
                return plan_parity(engine, gpu, job, lambda done, of: None)
            finally:
                engine.close()

    def _sink(self, severity: str, message: str) -> None:
        self.messages.append(message)
        if severity == "ERROR":
            self.log.errors.append(message)

    def _tell(self, *event: Any) -> None:
        self.events.append(event)


def test_options_and_profiles_reach_the_plan(small_copy: Path, double: SetUp) -> None:
    job = _job(small_copy, Component.SDM_UNET, "images", optimization_level=1)
    content = unpacked(_Session().build(job))
    assert content is not None
    header, model = content
    assert (header["aux_streams"], header["level"], header["detailed"]) == (0, 1, True)
    assert model
    rows = [profile["prompt_embeds"][1][0] for profile in header["profiles"]]
    assert rows == [4, 8, 12], "four images: the augmented pass alone, the two rules' passes"
    assert not header["static"]


@pytest.mark.parametrize("workspace_mib", [None, 64])
def test_tf32_is_off_and_the_scratch_memory_is_what_was_asked_for(
    workspace_mib: int | None, small_copy: Path, double: SetUp
) -> None:
    job = _job(small_copy, Component.FUSION_MLP, workspace_mib=workspace_mib)
    content = unpacked(_Session().build(job))
    assert content is not None
    header, _ = content
    assert header["tf32"] is False
    assert header["workspace_nbytes"] == (None if workspace_mib is None else 64 * 1024 * 1024)


@pytest.mark.parametrize("component", [Component.FUSION_MLP, Component.TDM_UNET])
def test_a_model_with_other_inputs_than_the_contract_is_refused_by_name(
    component: Component, small_copy: Path, double: SetUp
) -> None:
    job, path = _job(small_copy, component), small_copy / "onnx" / f"{component}.onnx"
    model = onnx.load(path, load_external_data=False)
    old = model.graph.input[0].name
    model.graph.input[0].name = "stranger"
    for node in model.graph.node:
        node.input[:] = ["stranger" if name == old else name for name in node.input]
    onnx.save(model, path)
    with pytest.raises(PlanBuildError, match=rf"has inputs .*stranger.*contract of .*{old}"):
        _Session().build(job)


def test_shapes_that_are_all_the_same_are_built_as_a_static_network(
    small_copy: Path, double: SetUp
) -> None:
    content = unpacked(_Session().build(_job(small_copy, Component.SDM_UNET)))
    assert content is not None
    header, _ = content
    assert header["static"]
    (profile,) = header["profiles"]
    assert profile["prompt_embeds"] == [[3, 77, 8]] * 3, "one network for each number of passes"


@pytest.mark.parametrize("version", ["11.4.0.106", "10.16.1.11", "10.9.0.34"])
def test_networks_are_strongly_typed_in_every_version(
    version: str, small_copy: Path, double: SetUp
) -> None:
    double(version=version)
    assert _Session().build(_job(small_copy, Component.FUSION_MLP))


def test_every_parser_error_names_its_node(small_copy: Path, double: SetUp) -> None:
    double(fail={"tdm_unet": "parser"})
    with pytest.raises(PlanBuildError, match=r"tdm_unet\.onnx: node 3 node_\w+ \(\w+\): no impo"):
        _Session().build(_job(small_copy, Component.TDM_UNET))


def test_a_parser_of_tensorrt_10_is_offered_an_older_opset(small_copy: Path, double: SetUp) -> None:
    double(fail={"tdm_unet": "parser"}, version="10.9.0.34")
    with pytest.raises(PlanBuildError, match=r"TensorRT 10\.9.*--opset 21"):
        _Session().build(_job(small_copy, Component.TDM_UNET))


def test_nothing_built_carries_the_last_error_and_the_log(small_copy: Path, double: SetUp) -> None:
    double(fail={"vae": "nothing"})
    with pytest.raises(PlanBuildError, match=r"vae_decoder.*Could not find any.*sm_90\.log"):
        _Session().build(_job(small_copy, Component.VAE_DECODER))


def test_out_of_memory_is_told_from_other_failures(small_copy: Path, double: SetUp) -> None:
    double(fail={"vae": "memory"})
    with pytest.raises(PlanMemoryError, match="OutOfMemory"):
        _Session().build(_job(small_copy, Component.VAE_DECODER))


def test_a_machine_without_a_gpu_is_named(small_copy: Path, double: SetUp) -> None:
    double(no_gpu=True)
    with pytest.raises(ProviderUnavailableError, match=r"35.*nvidia-smi"):
        _Session().build(_job(small_copy, Component.FUSION_MLP))


def test_cancelling_stops_at_the_next_step(small_copy: Path, double: SetUp) -> None:
    session = _Session()
    session.cancellation.requested = True
    with pytest.raises(PlanCancelledError, match="cancelled"):
        session.build(_job(small_copy, Component.TDM_UNET))
    assert [event[0] for event in session.events].count("step") == 1


def test_tdm_and_sdm_share_one_timing_cache(small_copy: Path, double: SetUp) -> None:
    first, second = _Session(), _Session()
    first.build(_job(small_copy, Component.TDM_UNET))
    second.build(_job(small_copy, Component.SDM_UNET))
    assert "10 of 10 from the timing cache" in second.messages
    assert "10 of 10 from the timing cache" not in first.messages
    assert all("anybody" not in message for message in first.messages), "verbose"


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"device": 75, "version": "8"}'])
def test_a_timing_cache_of_another_gpu_is_begun_anew(
    content: bytes, small_copy: Path, double: SetUp
) -> None:
    job = _job(small_copy, Component.FUSION_MLP)
    job.timing_cache.parent.mkdir(parents=True)
    job.timing_cache.write_bytes(content)
    _Session().build(job)
    assert json.loads(job.timing_cache.read_bytes())["device"] == 90


@pytest.mark.parametrize("version", ["11.4.0.106", "10.16.1.11"])
def test_half_precision_is_proven_layer_by_layer(
    version: str, small_copy: Path, double: SetUp
) -> None:
    double(version=version)
    proof = _Session().precision(_job(small_copy, Component.TDM_UNET))
    expected = LayerPrecision(told_by=ToldBy.INSPECTOR, layers=10, compute_layers=2, half_layers=2)
    assert proof == expected, "the timestep's sine is in float32, and computes nothing"


def test_an_inspector_that_tells_nothing_has_not_said_that_layers_are_not_half(
    small_copy: Path, double: SetUp
) -> None:
    double(unreadable_layers=True)
    assert _Session().precision(_job(small_copy, Component.TDM_UNET)) is None


def test_an_engine_that_multiplies_in_single_precision_is_refused(small_copy: Path) -> None:
    job = _job(small_copy, Component.TDM_UNET)
    half = {"Dimensions": [2, 4], "DataType": "Half"}
    scale = {"Dimensions": [1], "DataType": "Float"}
    wide = {"Dimensions": [2, 4], "DataType": "Float"}
    norm = {"Name": "norm", "LayerType": "kgen", "Inputs": [half], "Outputs": [half, wide]}
    product = {"Name": "fc", "LayerType": "gemm", "Inputs": [half, scale], "Outputs": [half]}
    layers = layers_of_inspector(json.dumps({"Layers": [norm, product]}))
    proof = proven_layers(layers, ToldBy.INSPECTOR, job)
    assert proof is not None
    assert (proof.layers, proof.compute_layers, proof.half_layers) == (2, 1, 1)
    layers = layers_of_inspector(json.dumps({"Layers": [norm, product | {"Outputs": [wide]}]}))
    with pytest.raises(PlanRefusedError, match=r"1 of its 1 layers .*single.*fc .*not published"):
        proven_layers(layers, ToldBy.INSPECTOR, job)


def test_an_engine_with_single_precision_tensors_is_refused(
    small_copy: Path, double: SetUp
) -> None:
    double(single=["tdm_unet"])
    with pytest.raises(PlanRefusedError, match=r"takes latents as .*FLOAT, expected .*HALF"):
        _Session().precision(_job(small_copy, Component.TDM_UNET))


def test_layers_are_counted_in_the_json_of_both_versions() -> None:
    def layer(*outputs: dict[str, str]) -> dict[str, Any]:
        return {"Name": "x", "Outputs": list(outputs)}

    ten, eleven = "Format/Datatype", "DataType"
    layers = [
        layer({ten: "Row major linear FP16 format"}),
        layer({ten: "Row major linear FP32"}),
        layer({eleven: "Half", "Format": "Channel major"}, {eleven: "Half"}),
        layer({eleven: "Half"}, {eleven: "Float"}),
        layer({eleven: "Int64"}),
        layer({ten: "N/A due to dynamic shapes"}),
        "a name alone",
    ]
    told = layers_of_inspector(json.dumps({"Layers": layers}))
    assert [each.is_told for each in told] == [True] * 4 + [False] * 3
    wide = [any(operand.is_wide for operand in each.operands) for each in told]
    assert wide == [False, True, False, True, False, False, False]


@pytest.mark.parametrize("component", list(Component))
def test_plans_are_compared_with_the_cpu_in_every_profile(
    component: Component, small_copy: Path, double: SetUp
) -> None:
    parity = _Session().parity(_job(small_copy, component, "images"))
    cases = {Component.TDM_UNET: 3, Component.SDM_UNET: 9}
    assert parity.cases == cases.get(component, 1)
    assert 0 < parity.relative_l2 <= parity.bound


@pytest.mark.parametrize("component", list(Component))
@pytest.mark.parametrize("of_bound", [0.5, 2.0])
def test_every_components_bound_lies_between_half_of_it_and_twice(
    of_bound: float, component: Component, small_copy: Path, double: SetUp
) -> None:
    # Rounding to half adds a little to the smaller drift: 2**-11 in the mean square, and more where
    # a picture is summed up to three numbers.
    drift = 1 + of_bound * bound_of(component, Precision.FP16)
    double(drift={str(component): drift})
    if of_bound < 1:
        parity = _Session().parity(_job(small_copy, component))
        assert drift - 1 <= parity.relative_l2 * 1.2 <= 2 * parity.bound
    else:
        with pytest.raises(PlanRefusedError, match=f"{component}.* from ONNX Runtime on the CPU"):
            _Session().parity(_job(small_copy, component))


@pytest.mark.parametrize(("factor", "words"), [(1.05, "5.00e-02 from"), (float("nan"), "NaN")])
def test_a_plan_that_drifts_is_refused_with_the_command_that_finds_the_layer(
    factor: float, words: str, small_copy: Path, double: SetUp
) -> None:
    double(drift={"sdm_unet": factor})
    with pytest.raises(PlanRefusedError, match=rf"{words}.*export.bisect .*bundle sdm_unet"):
        _Session().parity(_job(small_copy, Component.SDM_UNET))


@pytest.mark.parametrize(
    ("change", "plan_change"),
    [
        ({"version": "11.3.0.1"}, 0),
        ({"architecture": 89}, 0),
        ({}, -1),
    ],
)
def test_a_plan_of_another_machine_or_a_truncated_one_is_refused_by_name(
    change: dict[str, Any], plan_change: int, small_copy: Path, double: SetUp
) -> None:
    plan = _Session().build(_job(small_copy, Component.FUSION_MLP))
    double(**change)
    session = _Session()
    with pytest.raises(BundleCorruptError, match="the plan fusion: it is damaged"):
        engine_from_plan(
            TENSORRT, session.trt, session.logger, plan[: len(plan) + plan_change], "fusion"
        )


def test_a_job_survives_its_journey_to_the_worker(small_copy: Path) -> None:
    job = _job(small_copy, Component.SDM_UNET, workspace_mib=64)
    assert from_json(PlanJob, to_json(job)) == job
    assert from_json(PlanJob, to_json(replace(job, optimization_level=1))) != job
