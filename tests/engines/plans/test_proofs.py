"""What proves a plan, on layers made up for it: fused attention, and half precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.bundle.plan_record import LayerPrecision, NetworkPrecision, ToldBy
from engines.contract import Component
from engines.errors import PlanRefusedError
from engines.plans.building import plan_from_onnx
from engines.plans.building.job import PlanJob
from engines.plans.bundle_plans import PlanRequest, plan_job, plan_specs
from engines.plans.proofs.attention import proven_attention
from engines.plans.proofs.layers import EngineLayer, Operand
from engines.plans.proofs.precision import inspected_layers, proven_layers, proven_network
from tests.engines.conftest import TARGET

HALF, SINGLE, ONE = Operand("Half", 64), Operand("Float", 64), Operand("Float", 1)


def _job(small_bundle: Path, component: Component) -> PlanJob:
    bundle = Bundle.open(small_bundle)
    (spec, *_) = plan_specs(bundle, TARGET, PlanRequest(components=(component,)))
    return plan_job(bundle, spec)


@pytest.fixture
def job(small_bundle: Path) -> PlanJob:
    return _job(small_bundle, Component.TDM_UNET)


def _fused(*nodes: str) -> EngineLayer:
    return EngineLayer("__myl_mha_myl0", "kgen", (HALF,), nodes=frozenset(nodes))


def test_every_attention_in_a_fused_layer_is_proved(job: PlanJob) -> None:
    found = proven_attention(["a", "b"], [_fused("a"), _fused("b", "c")], job)
    assert (found.nodes, found.fused, found.unfused) == (2, 2, ())


def test_an_attention_in_other_layers_is_refused_by_name(job: PlanJob) -> None:
    other = replace(_fused("b"), name="__myl_gemm")
    with pytest.raises(PlanRefusedError, match=r"1 of its 2 attentions .* first of them b;"):
        proven_attention(["a", "b"], [_fused("a"), other], job)


def test_attention_is_fused_in_every_optimization_profile(job: PlanJob) -> None:
    two = replace(job, spec=replace(job.spec, shapes=job.spec.shapes * 2))
    assert proven_attention(["a"], [_fused("a"), _fused("a")], two).fused == 1
    with pytest.raises(PlanRefusedError, match="1 of its 1 attentions"):
        proven_attention(["a"], [_fused("a")], two)


def test_the_decoders_one_wide_head_alone_may_be_unfused(small_bundle: Path) -> None:
    found = proven_attention(["a"], [], _job(small_bundle, Component.VAE_DECODER))
    assert (found.nodes, found.fused, found.unfused) == (1, 0, ("a",))
    for component in (Component.TEXT_ENCODER, Component.IMAGE_ENCODER, Component.SDM_UNET):
        with pytest.raises(PlanRefusedError):
            proven_attention(["a"], [], _job(small_bundle, component))


def _layer(kind: str, *operands: Operand) -> EngineLayer:
    return EngineLayer(kind, kind, operands)


def test_layers_that_compute_and_are_told_are_counted(job: PlanJob) -> None:
    layers = [
        _layer("gemm", HALF, ONE),
        _layer("CaskConvolution", HALF),
        _layer("gemm"),
        _layer("Reformat", SINGLE),
        _layer("__mha", HALF),
    ]
    assert proven_layers(layers, ToldBy.INSPECTOR, job) == LayerPrecision(
        told_by=ToldBy.INSPECTOR, layers=5, compute_layers=3, half_layers=3
    )


@pytest.mark.parametrize("wide", [SINGLE, Operand("Float", None), Operand("FP64", 2)])
def test_a_layer_that_computes_in_single_is_refused_by_name(wide: Operand, job: PlanJob) -> None:
    layers = [_layer("gemm", HALF), replace(_layer("gemm", HALF, wide), name="second")]
    with pytest.raises(PlanRefusedError, match=r"1 of its 2 layers .* second \(build log\)"):
        proven_layers(layers, ToldBy.BUILD_LOG, job)
    single = replace(job, precision=Precision.FP32)
    told = proven_layers(layers, ToldBy.BUILD_LOG, single)
    assert told is not None
    assert (told.compute_layers, told.half_layers) == (2, 1)


def test_where_no_type_is_told_nothing_is_proved(job: PlanJob) -> None:
    assert proven_layers([_layer("gemm"), _layer("x")], ToldBy.INSPECTOR, job) is None
    assert proven_layers([_layer("gemm"), _layer("x", HALF)], ToldBy.INSPECTOR, job) is not None


def test_the_inspector_is_asked_of_the_best_shapes_of_the_first_profile(
    small_bundle: Path,
) -> None:
    """Smallest, best and largest are others in this one."""
    bundle, asked = Bundle.open(small_bundle), list[tuple[Any, ...]]()
    request = PlanRequest(components=(Component.TDM_UNET,), profiles=("images-sizes",))
    (spec,) = plan_specs(bundle, TARGET, request)
    shapes = {name: ranges[1] for name, ranges in spec.shapes[0].items()}
    assert any(low != best or best != high for low, best, high in spec.shapes[0].values())

    def noted(*words: Any) -> bool:
        asked.append(words)
        return True

    context = SimpleNamespace(set_optimization_profile_async=noted, set_input_shape=noted)
    information = '{"Layers": [{"Name": "a", "LayerType": "gemm"}]}'
    inspector = SimpleNamespace(get_engine_information=lambda _: information)
    engine: Any = SimpleNamespace(
        create_engine_inspector=lambda: inspector, create_execution_context=lambda _: context
    )
    trt: Any = SimpleNamespace(
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=0),
        LayerInformationFormat=SimpleNamespace(JSON=1),
    )
    (layer,) = inspected_layers(trt, engine, plan_job(bundle, spec))
    assert (layer.name, layer.kind) == ("a", "gemm")
    assert asked == [(0, 0), *shapes.items()]


@pytest.mark.parametrize("architectures", [(), (89, 120)])
def test_a_plan_for_other_cards_allocates_nothing_while_it_runs_and_is_for_those_asked_for(
    architectures: tuple[int, ...], job: PlanJob
) -> None:
    flags, named = list[str](), list[tuple[str, int]]()

    def capability(name: str, index: int) -> bool:
        named.append((name, index))
        return True

    config: Any = SimpleNamespace(set_flag=flags.append, set_compute_capability=capability)
    rtx: Any = SimpleNamespace(
        BuilderFlag=SimpleNamespace(REQUIRE_USER_ALLOCATION="no allocation"),
        ComputeCapability=SimpleNamespace(SM89="8.9", SM120="12.0"),
    )
    asked = replace(job, spec=replace(job.spec, architectures=architectures))
    plan_from_onnx._configure_rtx(rtx, config, asked)
    assert flags == ["no allocation"]
    assert config.num_compute_capabilities == len(architectures)
    assert named == [("8.9", 0), ("12.0", 1)][: len(architectures)]


TRT: Any = SimpleNamespace(
    DataType=SimpleNamespace(FLOAT="float", HALF="half", INT32="int32"),
    LayerType=SimpleNamespace(CONSTANT="constant", OTHER="other"),
)


def _tensor(name: str, dtype: str = "half", shape: tuple[int, ...] = (4, 8)) -> Any:
    return SimpleNamespace(name=name, dtype=dtype, shape=shape)


def _node(output: Any, *inputs: Any, constant: bool = False) -> Any:
    return SimpleNamespace(
        name=f"node of {output.name}", type="constant" if constant else "other",
        num_inputs=len(inputs), get_input=lambda index: inputs[index],
        num_outputs=1, get_output=lambda _: output,
    )  # fmt: skip


LATENTS, TIMESTEP = _tensor("latents"), _tensor("timestep", "float", (1,))
EMBEDS, ANSWER = _tensor("prompt_embeds"), _tensor("noise_prediction")
FREQUENCIES, WAVES = _tensor("frequencies", "float"), _tensor("waves", "float")
SINES, CAST = _tensor("sines", "float"), _tensor("cast")
# Of the timestep alone: frequencies, their product with it, its sine, and that in half.
NODES = (
    _node(FREQUENCIES, constant=True),
    _node(WAVES, TIMESTEP, FREQUENCIES),
    _node(SINES, WAVES, None),
    _node(CAST, SINES),
    _node(ANSWER, LATENTS, CAST),
)


def _network(*nodes: Any, inputs: tuple[Any, ...] = (LATENTS, TIMESTEP, EMBEDS)) -> Any:
    outputs = (ANSWER,)
    return SimpleNamespace(
        num_layers=len(nodes), get_layer=lambda index: nodes[index],
        num_inputs=len(inputs), get_input=lambda index: inputs[index],
        num_outputs=1, get_output=lambda index: outputs[index],
    )  # fmt: skip


def test_single_precision_is_for_what_is_computed_of_the_timestep_alone(job: PlanJob) -> None:
    found = proven_network(TRT, _network(*NODES), job)
    assert found == NetworkPrecision(tensors=5, single=3, sinusoids=3)


@pytest.mark.parametrize(
    "shape", [pytest.param((4, 8), id="numbers"), pytest.param((-1, 8), id="an open size")]
)
def test_single_precision_of_anything_else_is_refused_by_name(
    shape: tuple[int, ...], job: PlanJob
) -> None:
    wide = _tensor("wide", "float", shape)
    network = _network(*NODES, _node(wide, LATENTS, SINES))
    with pytest.raises(
        PlanRefusedError, match=r"1 tensors .* first of them wide of node of wide; .*--fp16"
    ):
        proven_network(TRT, network, job)
    told = proven_network(TRT, _network(*NODES, _node(wide, LATENTS)), _single(job))
    assert (told.single, told.sinusoids) == (5, 3), "the answer too"


def _single(job: PlanJob) -> PlanJob:
    """Whose inputs are looked for in single precision."""
    for tensor in (LATENTS, EMBEDS, ANSWER):
        tensor.dtype = "float"
    return replace(job, precision=Precision.FP32)


@pytest.fixture(autouse=True)
def half_tensors() -> None:
    for tensor in (LATENTS, EMBEDS, ANSWER):
        tensor.dtype = "half"


def test_a_number_in_single_precision_is_let_through(job: PlanJob) -> None:
    number = _tensor("number", "float", (1, 1))
    found = proven_network(TRT, _network(*NODES, _node(number, LATENTS)), job)
    assert found == NetworkPrecision(tensors=6, single=3, sinusoids=3)


def test_inputs_and_outputs_are_in_the_models_precision(job: PlanJob) -> None:
    for tensor in (LATENTS, EMBEDS, ANSWER):
        tensor.dtype = "float"
        with pytest.raises(PlanRefusedError, match=f"takes {tensor.name} as float, expected half"):
            proven_network(TRT, _network(*NODES), job)
        tensor.dtype = "half"
    with pytest.raises(PlanRefusedError, match="takes prompt_embeds as None"):
        proven_network(TRT, _network(*NODES, inputs=(LATENTS, TIMESTEP)), job)
