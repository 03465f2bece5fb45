"""Plans in 8 bits: which are asked for, from which files, and what proves each."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.bundle.files import file_record
from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME
from engines.bundle.plan_record import BuiltPlan, NetworkPrecision, PlanSpec, QuantizedLayers
from engines.bundle.quantization import Quantization
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import BundleCorruptError, PlanRefusedError
from engines.plans.building.build_log import BuildLog
from engines.plans.building.child import OnEvent
from engines.plans.building.job import PlanJob
from engines.plans.building.plan_from_onnx import Built
from engines.plans.building.worker import proofs_of_log
from engines.plans.bundle_plans import PlanRequest, build_plans, plan_job, plan_specs
from engines.plans.proofs.layers import EngineLayer, Operand, layers_of_log
from engines.plans.proofs.quantization import proven_quantization
from engines.plans.store import published_plans
from engines.tensorrt.target import PlanTarget
from tests.doubles.plan_builds import Builds, Said
from tests.doubles.small_quantized import add_quantized
from tests.engines.conftest import RTX_TARGET, TARGET

INT8, FP8 = Quantization
UNETS = PlanRequest(components=NOISE_PREDICTORS)
TDM = PlanRequest(components=(Component.TDM_UNET,))


@pytest.fixture
def bundle(small_copy: Path) -> Path:
    add_quantized(small_copy)
    return small_copy


def _specs(bundle: Path, target: PlanTarget, request: PlanRequest = TDM) -> list[PlanSpec]:
    return plan_specs(Bundle.open(bundle), target, request)


def test_a_u_net_in_8_bits_has_the_plans_of_its_own_precision_and_others_have_no_more(
    bundle: Path,
) -> None:
    specs = _specs(bundle, TARGET, PlanRequest())
    stems = [spec.name.removesuffix(".sm_90") for spec in specs]
    own = [stem for stem in stems if ".int8." not in stem and ".fp8." not in stem]
    assert len(own) == 8
    of_unets = [stem for stem in own if "_unet" in stem]
    assert len(of_unets) == 4
    for each in (INT8, FP8):
        expected = [stem.replace("_unet", f"_unet.{each}") for stem in of_unets]
        assert [stem for stem in stems if f".{each}." in stem] == expected
    assert len({spec.path for spec in specs}) == len({spec.onnx_digest for spec in specs}) + 6
    by_kind = {spec.quantization: spec for spec in specs if spec.component == "tdm_unet"}
    for kind, spec in by_kind.items():
        record = Bundle.open(bundle).quantized(kind).component(Component.TDM_UNET)
        assert spec.onnx_digest == record.onnx_digest()


@pytest.mark.parametrize(
    ("architecture", "kinds"),
    [
        (75, [None]),
        (79, [None]),
        (80, [None, INT8]),
        (86, [None, INT8]),
        (88, [None, INT8]),
        (89, [None, INT8, FP8]),
        (120, [None, INT8, FP8]),
    ],
)
def test_a_gpu_gets_plans_in_the_formats_that_it_multiplies_in(
    architecture: int, kinds: list[Quantization | None], bundle: Path
) -> None:
    specs = _specs(bundle, replace(TARGET, architectures=(architecture,)))
    assert [spec.quantization for spec in specs] == kinds
    assert {spec.architectures for spec in specs} == {(architecture,)}


def test_a_plan_for_many_cards_is_for_those_that_multiply_in_its_formats(bundle: Path) -> None:
    asked = {spec.quantization: spec.architectures for spec in _specs(bundle, RTX_TARGET)}
    # Nothing named stands for sm_80, 86, 89, 120, 121 and all that come later.
    assert asked == {None: (), INT8: (), FP8: (89, 120, 121)}
    some = replace(RTX_TARGET, architectures=(75, 86, 89))
    asked = {spec.quantization: spec.architectures for spec in _specs(bundle, some)}
    assert asked == {None: (75, 86, 89), INT8: (86, 89), FP8: (89,)}
    old = replace(RTX_TARGET, architectures=(75,))
    assert [spec.quantization for spec in _specs(bundle, old)] == [None]


def test_a_job_has_the_graphs_and_the_recipe_of_its_kind(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for spec in _specs(bundle, TARGET):
        job, record = plan_job(opened, spec), opened.component(Component.TDM_UNET)
        if spec.quantization is None:
            assert job.quantized_nodes == job.stored_nodes == ()
            assert job.onnx == bundle / "onnx" / "tdm_unet.onnx"
        else:
            recipe = record.quantized[spec.quantization].recipe
            assert len(recipe.nodes) == 2
            assert job.quantized_nodes == recipe.nodes
            assert job.stored_nodes == recipe.weights != ()
            assert job.onnx == bundle / "onnx" / f"tdm_unet.{spec.quantization}.onnx"
            assert job.cpu_onnx == bundle / "onnx" / f"tdm_unet.{spec.quantization}.cpu.onnx"


def _built(bundle: Path, request: PlanRequest = TDM) -> Builds:
    builds = Builds()
    build_plans(bundle, TARGET, request, Said(), lambda *_: None, builds)
    return builds


def _alter(bundle: Path, name: str) -> None:
    path = bundle / "onnx" / name
    path.write_bytes(bytes(path.stat().st_size))


def test_no_plan_is_built_from_8_bit_files_that_were_altered(bundle: Path) -> None:
    _alter(bundle, "tdm_unet.int8.cpu.onnx")
    with pytest.raises(BundleCorruptError, match=r"tdm_unet\.int8\.cpu\.onnx was altered"):
        _built(bundle)
    waiting = bundle / "build" / "plans"
    assert [path.name for path in waiting.glob("*.plan")] == ["tdm_unet.native.sm_90.plan"]


def test_a_plan_of_8_bit_graphs_that_changed_is_stale_alone(bundle: Path) -> None:
    assert len(_built(bundle).jobs) == 3
    assert not _built(bundle).jobs
    manifest = Bundle.open(bundle).manifest
    record = manifest.components[Component.TDM_UNET]
    _alter(bundle, "tdm_unet.int8.onnx")
    name = "onnx/tdm_unet.int8.onnx"
    graph = record.quantized[INT8]
    files = graph.files | {name: file_record(bundle / name)}
    changed = replace(record, quantized=record.quantized | {INT8: replace(graph, files=files)})
    components = manifest.components | {Component.TDM_UNET: changed}
    (bundle / MANIFEST_NAME).write_text(replace(manifest, components=components).to_json())
    kept, _ = published_plans(bundle, components)
    assert [record.spec.quantization for record in kept] == [FP8, None]
    assert [job.spec.quantization for job in _built(bundle).jobs] == [INT8]


class _Activations(Builds):
    """Builds with as many bytes of activations as each kind of plan is said to take."""

    def __init__(self, nbytes: dict[Quantization | None, int], images_nbytes: int = 0) -> None:
        super().__init__()
        self._nbytes, self._images_nbytes = nbytes, images_nbytes

    def __call__(self, job: PlanJob, on_event: OnEvent) -> BuiltPlan:
        built = super().__call__(job, on_event)
        more = self._images_nbytes if job.spec.profile == "images" else 0
        return replace(built, device_memory_nbytes=self._nbytes[job.spec.quantization] + more)


@pytest.mark.parametrize("target", [TARGET, RTX_TARGET])
def test_a_plan_that_needs_more_activations_than_in_half_is_refused(
    bundle: Path, target: PlanTarget
) -> None:
    def built(nbytes: dict[Quantization | None, int]) -> Builds:
        builds = _Activations(nbytes)
        build_plans(bundle, target, TDM, Said(), lambda *_: None, builds)
        return builds

    with pytest.raises(PlanRefusedError, match=r"tdm_unet\.int8\..* 176\.0 MiB of activations, ex"):
        built({None: 100 << 20, INT8: 176 << 20, FP8: 0})
    # The other was finished before, and is what the next is held against.
    with pytest.raises(PlanRefusedError, match=r"fp8\..*at most 1\.75 times the 100\.0 MiB"):
        built({INT8: 175 << 20, FP8: 176 << 20})
    assert [job.spec.quantization for job in built({FP8: 175 << 20}).jobs] == [FP8]
    assert {record.spec.quantization for record in Bundle.open(bundle).manifest.plans} == {
        None, INT8, FP8,
    }  # fmt: skip


def test_a_plan_of_another_profile_is_no_measure_of_activations(bundle: Path) -> None:
    request = replace(TDM, profiles=("native", "images"))
    builds = _Activations({None: 1 << 20, INT8: 1 << 20, FP8: 1 << 20}, images_nbytes=1 << 20)
    build_plans(bundle, TARGET, request, Said(), lambda *_: None, builds)
    assert len(builds.jobs) == 6


GEMM = EngineLayer(
    name="__myl_Gemm",
    kind="gemm",
    operands=(),
    nodes=frozenset({"q", "k"}),
    inputs=(Operand("Int8", 64), Operand("Int8", 64)),
    outputs=(Operand("Half", 64),),
    constants=("a.scale",),
)
CONVOLUTION = replace(GEMM, name="conv", kind="CaskConvolution correlation", nodes=frozenset({"c"}))
OTHER = EngineLayer("pointwise", "pointwise", (), nodes=frozenset({"x"}))


@pytest.fixture
def job(bundle: Path) -> PlanJob:
    spec = next(each for each in _specs(bundle, TARGET) if each.quantization is INT8)
    return replace(plan_job(Bundle.open(bundle), spec), quantized_nodes=("q", "k", "c"))


def test_every_node_of_the_recipe_in_an_8_bit_layer_is_proved(job: PlanJob) -> None:
    found = proven_quantization([GEMM, OTHER, CONVOLUTION], job)
    assert found == QuantizedLayers(nodes=3, layers=2)


HALF = EngineLayer(
    name="__myl_CastMulCastFc",
    kind="runtime_fusion",
    operands=(Operand("Half", 64), Operand("Int8", 64), Operand("Half", 64)),
    nodes=frozenset({"s", "dq.s", "x"}),
    inputs=(Operand("Half", 64),),
    outputs=(Operand("Half", 64),),
)


def test_weights_in_8_bits_of_products_in_half_are_counted(job: PlanJob) -> None:
    asked, eight = replace(job, stored_nodes=("dq.s",)), Operand("Int8", 64)
    found = proven_quantization([GEMM, HALF, CONVOLUTION], asked)
    assert found == QuantizedLayers(nodes=3, layers=2, stored=1)
    for half in (
        replace(HALF, operands=(Operand("Half", 64),) * 3),
        replace(HALF, nodes=frozenset({"s"})),
        # What comes in and goes out in 8 bits is no weight.
        replace(HALF, operands=(*HALF.inputs, eight), outputs=(eight,)),
    ):
        found = proven_quantization([GEMM, half, CONVOLUTION], asked)
        assert found == QuantizedLayers(nodes=3, layers=2, stored=0)


def test_where_no_node_was_asked_for_nothing_is_proved(job: PlanJob) -> None:
    assert proven_quantization([GEMM], replace(job, quantized_nodes=())) is None


Change = Callable[[EngineLayer], EngineLayer]


@pytest.mark.parametrize(
    ("wrong", "change", "words"),
    [
        (
            "a product's operands are in half",
            lambda layer: replace(layer, inputs=(Operand("Half", 64), Operand("Half", 64))),
            r"2 of 3 products are not in 8 bits, the first of them q;",
        ),
        (
            "a layer says nothing of its inputs",
            lambda layer: replace(layer, inputs=()),
            r"2 of 3 products are not in 8 bits, the first of them q;",
        ),
        (
            "8 bits that are only written",
            lambda layer: replace(
                layer, inputs=(Operand("Half", 64),), outputs=(Operand("Int8", 64),)
            ),
            r"2 of 3 products are not in 8 bits, the first of them q;",
        ),
        (
            "a layer that only moves 8 bits",
            lambda layer: replace(layer, kind="reformat"),
            r"2 of 3 products are not in 8 bits, the first of them q;",
        ),
        (
            "one node of two went elsewhere",
            lambda layer: replace(layer, nodes=frozenset({"q"})),
            r"1 of 3 products are not in 8 bits, the first of them k;",
        ),
        (
            "the unquantized build's factor is among the constants",
            lambda layer: replace(layer, constants=("a.scale", "q_alpha_myl12")),
            r"1 products leave their sum unscaled in half, the first of them __myl_Gemm;",
        ),
        (
            "single precision is written",
            lambda layer: replace(layer, outputs=(Operand("Float", 64),)),
            r"1 8-bit layers write single precision, the first of them __myl_Gemm;",
        ),
        (
            "single precision is written beside half",
            lambda layer: replace(layer, outputs=(Operand("Half", 64), Operand("Float", None))),
            r"1 8-bit layers write single precision",
        ),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_by_name(
    wrong: str, change: Change, words: str, job: PlanJob
) -> None:
    with pytest.raises(PlanRefusedError, match=words) as caught:
        proven_quantization([change(GEMM), OTHER, CONVOLUTION], job)
    assert f"tdm_unet.int8.native.sm_90: {words[0]}" in str(caught.value), wrong
    assert f"is not published; see {job.log}" in str(caught.value)


def test_what_breaks_no_rule_is_let_through(job: PlanJob) -> None:
    """A number in single precision, a convolution's factor, and half layers beside the recipe."""
    for allowed in (
        replace(GEMM, outputs=(Operand("Half", 64), Operand("Float", 1))),
        replace(GEMM, inputs=(Operand("FP8", 64), Operand("Half", 64))),
        replace(GEMM, kind="CaskGemmConvolution GEMM", constants=()),
    ):
        assert proven_quantization([allowed, CONVOLUTION], job) is not None
    folded = replace(CONVOLUTION, constants=("c_alpha_myl3",))
    half = replace(OTHER, kind="gemm", inputs=(Operand("Half", 64),), constants=("x_alpha_myl1",))
    assert proven_quantization([GEMM, folded, half], job) == QuantizedLayers(nodes=3, layers=2)


def test_scales_of_an_8_bit_layer_may_be_single_and_other_operands_may_not() -> None:
    """A number for each channel; of a layer in half, they are too much."""
    scales = Operand("Float", 64)
    layer = replace(GEMM, operands=(*GEMM.inputs, scales, *GEMM.outputs))
    assert not layer.is_wide
    assert replace(layer, inputs=(Operand("Half", 64),)).is_wide
    assert replace(layer, inputs=(*GEMM.inputs, scales)).is_wide
    assert replace(layer, outputs=(scales,)).is_wide


def _logged(kind: str, read: str, constant: str, wrote: str) -> str:
    """A layer as TensorRT for RTX 1.7 tells of it: weights in 8 bits, one more constant."""

    def tensor(name: str, dtype: str, size: str = "8,8") -> str:
        return (
            f"{{ Name: {name}, Dimensions: [{size}], Strides: [8,1], StrideOrder: [1,0], "
            f"Datatype: {dtype}, Format: (Linear) Row major linear format }}"
        )

    return (
        f"Name: node_q_myl0_1, LayerType: {kind}, Inputs: [ {tensor('x', read)}], Constants: "
        f"[ {tensor('__mye455_dconst_myl0', 'Int8')}, {tensor(constant, 'Float', '1')}], Outputs: "
        f"[ {tensor('y', wrote)}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: "
        "[ONNX Layer: q][ONNX Layer: k][ONNX Layer: c][ONNX Layer: dq.q]"
    )


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        (("gemm", "Int8", "__mye427_myl0", "Half"), None),
        (("gemm", "FP8", "__mye333node_q_beta_myl0", "Half"), None),
        (("gemm", "Int8", "__mye333node_q_alpha_myl0", "Half"), "leave their sum unscaled"),
        (("gemm", "Int8", "__mye427_myl0", "Float"), "write single precision"),
        (("gemm", "Half", "__mye427_myl0", "Half"), "3 of 3 products are not in 8 bits"),
        (("kgen", "Int8", "__mye427_myl0", "Half"), "3 of 3 products are not in 8 bits"),
    ],
)
def test_the_log_of_a_build_is_what_proves(
    told: tuple[str, str, str, str], refused: str | None, job: PlanJob
) -> None:
    layers = layers_of_log(["Layers:\n" + _logged(*told)])
    if refused is None:
        assert proven_quantization(layers, job) == QuantizedLayers(nodes=3, layers=1)
    else:
        with pytest.raises(PlanRefusedError, match=refused):
            proven_quantization(layers, job)


@pytest.mark.parametrize(
    ("messages", "told", "refused"),
    [
        (["Total Activation Memory: 64 bytes"], "Int8", None),
        (["Total Activation Memory: 64 bytes"], "Half", "3 of 3 products are not in 8 bits"),
        (["Total Weights Memory: 64 bytes"], "Int8", "tells no layers or sizes"),
    ],
)
def test_a_build_without_a_gpu_is_proved_of_8_bits_too(
    messages: list[str], told: str, refused: str | None, job: PlanJob
) -> None:
    log = BuildLog(file=io.StringIO())
    log.messages[:] = messages
    log.verbose[:] = ["Layers:\n" + _logged("gemm", told, "__mye427_myl0", "Half")]
    network = NetworkPrecision(tensors=1, single=0, sinusoids=0)
    built = Built(b"a plan", network, attention=None)
    if refused is not None:
        with pytest.raises(PlanRefusedError, match=refused):
            proofs_of_log(job, built, log)
        return
    proofs = proofs_of_log(job, built, log)
    assert proofs.quantized == QuantizedLayers(nodes=3, layers=1)
    assert (proofs.network, proofs.attention) == (network, None)
    assert proofs.layers is not None
    assert proofs.layers.half_layers == proofs.layers.compute_layers == 1
