"""A build in half precision and one with 8 bits beside it, of a model of one layer everywhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME, Manifest, Precision
from engines.bundle.quantization import Quantization, QuantizedGraph
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component, ElementType
from engines.errors import BundleNotFoundError
from engines.gate import bound_of, relative_l2
from export.bundle import build_bundle
from export.checks.parity import ParityError
from export.checks.picture import NOISE_PREVIEW
from export.graph.lint import LintError, lint
from export.options import BuildOptions
from export.quantization.build import quantized_components
from export.quantization.pictures import Calibration
from runtime import FaceDiffuser, Result
from tests.doubles.small_checkpoint import draw_here, small_checkpoint
from tests.runtime.small_request import small

KINDS = {
    ElementType.FLOAT: TensorProto.FLOAT16, ElementType.FLOAT32: TensorProto.FLOAT,
    ElementType.INT32: TensorProto.INT32, ElementType.BOOL: TensorProto.BOOL,
}  # fmt: skip
# Two pictures of four steps, where a real build draws six of twenty.
CALIBRATION = Calibration(
    prompts=("a man <|image|> at sea", "a man <|image|> and a woman <|image|> in a park"), steps=4
)

pytestmark = pytest.mark.slow  # 40 s of a core, most of them in torch.onnx


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Path:
    """What `--fp16` builds."""
    bundle = tmp_path_factory.mktemp("half") / "bundle"
    options = BuildOptions(precision=Precision.FP16)
    with small_checkpoint() as source, pytest.MonkeyPatch.context() as patch:
        # A process for each component, and tested on its own.
        patch.setattr("export.component.polygraphy_lint", lambda _: None)
        build_bundle(
            bundle, source, options, said.append, (), draw=draw_here, preview=NOISE_PREVIEW
        )
    return bundle


def _graph(bundle: Path, name: str) -> onnx.GraphProto:
    return onnx.load(bundle / name, load_external_data=False).graph


def test_a_bundle_in_half_precision_opens_and_has_drawn(half: Path) -> None:
    bundle = Bundle.open(half)
    # Three files of each graph, the U-Nets sharing theirs; picture, tokenizer and model card.
    assert bundle.verify() == 5 * 3 + 3
    assert bundle.manifest.precision is Precision.FP16
    with Image.open(half / "preview.png") as picture:
        assert picture.size == (256, 256)
        assert np.asarray(picture).std() > 1
    parity = bundle.manifest.pipeline_parity
    # Rounding shows, or nothing was rounded.
    assert 1e-6 < parity["relative_l2"] <= parity["bound"] == 2e-2


@pytest.mark.parametrize("component", Component)
def test_a_component_takes_and_gives_what_the_contract_says(
    component: Component, half: Path
) -> None:
    contract, record = CONTRACTS[component], Bundle.open(half).component(component)
    graph, on_cpu = _graph(half, record.onnx), _graph(half, record.cpu_onnx)
    for values, tensors in ((graph.input, contract.inputs), (graph.output, contract.outputs)):
        kinds = {value.name: value.type.tensor_type.elem_type for value in values}
        assert kinds == {tensor.name: KINDS[tensor.element_type] for tensor in tensors}
    single = {value.type.tensor_type.elem_type for value in [*on_cpu.input, *on_cpu.output]}
    assert TensorProto.FLOAT16 not in single
    weights = [each for each in graph.initializer if len(each.dims) > 1]
    assert TensorProto.FLOAT16 in {each.data_type for each in weights}
    # Frequencies of the timestep's waves, [1, half of the first block's channels].
    island = [[1, 8]] if component in NOISE_PREDICTORS else []
    assert [[*each.dims] for each in weights if each.data_type == TensorProto.FLOAT] == island
    for name in ("onnx", "cpu_onnx"):
        parity = record.parity[name]
        assert parity.bound == bound_of(component, Precision.FP16)
        # One rounding of weights to half and no more than the gate lets through.
        assert 1e-6 < parity.relative_l2 <= parity.bound
    lint(half / record.onnx, Precision.FP16)
    with pytest.raises(LintError, match="does not compute in fp32"):
        lint(half / record.onnx, Precision.FP32)


def test_the_timesteps_waves_stay_in_single_precision(half: Path) -> None:
    (island,) = Bundle.open(half).component(Component.TDM_UNET).fp32_islands
    assert island.module == "time_proj"
    # Angles of hundreds of radians in half are off by a quarter of one; waves in half by 2**-11.
    assert island.error_in_half > bound_of(Component.TDM_UNET, Precision.FP16)
    assert island.error_with_island < 2**-11
    assert not Bundle.open(half).component(Component.VAE_DECODER).fp32_islands


def test_equal_weights_are_exported_once(half: Path, said: list[str]) -> None:
    manifest = Bundle.open(half).manifest
    tdm, sdm = (manifest.components[each] for each in (Component.TDM_UNET, Component.SDM_UNET))
    assert tdm == sdm
    assert any("same weights as before, shared" in text for text in said)
    assert not (half / "onnx" / "sdm_unet.onnx").exists()


def test_graphs_tell_nothing_of_the_machine_that_made_them(half: Path) -> None:
    for path in (half / "onnx").glob("*.onnx"):
        content = path.read_bytes()
        for word in (b"site-packages", b".py", str(Path.home()).encode() + b"/", b"stack_trace"):
            assert word not in content, f"{path.name} holds {word!r}"
        graph = _graph(half, str(path.relative_to(half)))
        assert not any(each.doc_string or each.metadata_props for each in graph.node)
        if ".cpu" not in path.name:
            shapes = [each.type.tensor_type.HasField("shape") for each in graph.value_info]
            assert not any(shapes), path.name


def test_a_finished_build_keeps_everything_and_equal_weights_give_equal_files(
    half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.component.polygraphy_lint", lambda _: None)
    again: list[str] = []
    with small_checkpoint() as source:
        options = BuildOptions(precision=Precision.FP16)
        before = {path: path.read_bytes() for path in (half / "onnx").iterdir()}
        (half / "build" / "fusion_mlp.json").unlink()
        build_bundle(half, source, options, again.append, (), draw=draw_here, preview=NOISE_PREVIEW)
    assert sum("unchanged, kept" in text for text in again) == 4
    assert sum("linting" in text for text in again) == 1
    assert {path: path.read_bytes() for path in (half / "onnx").iterdir()} == before


def _build(
    bundle: Path,
    quantizations: Sequence[Quantization],
    said: list[str],
) -> None:
    """The same build as before, beside what it finished."""
    with small_checkpoint() as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.component.polygraphy_lint", lambda _: None)
        build_bundle(
            bundle, source, BuildOptions(precision=Precision.FP16), said.append, (),
            draw=draw_here, preview=NOISE_PREVIEW, quantizations=quantizations,
            calibration=CALIBRATION,
        )  # fmt: skip


def _contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (bundle / "onnx").iterdir()}


@pytest.fixture(scope="module")
def eight(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `--fp16 --int8 --fp8` makes of a bundle in half precision."""
    bundle = Path(shutil.copytree(half, tmp_path_factory.mktemp("eight") / "bundle"))
    _build(bundle, tuple(Quantization), [])
    return bundle


@pytest.fixture
def eight_copy(eight: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(eight, tmp_path / "bundle"))


@pytest.mark.parametrize("quantization", Quantization)
def test_8_bits_are_within_their_bounds_and_say_what_is_in_them(
    quantization: Quantization, half: Path, eight: Path
) -> None:
    bundle = Bundle.open(eight)
    assert bundle.quantizations() == tuple(Quantization)
    own, record = (
        each.component(Component.TDM_UNET) for each in (bundle, bundle.quantized(quantization))
    )
    graph = own.quantized[quantization]
    assert bundle.quantized(quantization).component(Component.SDM_UNET) == record
    # Of four steps, one is the scene's and one is fused.
    assert graph.error.calls == 2 + 3
    assert graph.error.call_bound == 2.5e-2, "of SDM, because both have the same weights"
    assert graph.error.guided_bound == 5e-2
    # Eight bits of a few products show, or nothing was in 8 bits.
    assert 1e-5 < graph.error.call <= graph.error.call_bound
    assert 1e-5 < graph.error.guided <= graph.error.guided_bound
    assert graph.recipe.half_blocks == ("mid_block", "up_blocks.0")
    assert (graph.pictures, graph.calibration) == (2, CALIBRATION.digest())
    onnx_graph = _graph(eight, record.onnx)
    eight_bit = {
        node.name
        for node in onnx_graph.node
        if node.op_type in ("MatMul", "Conv", "Gemm") and node.input[1].endswith(".dq")
    }
    # In the blocks that multiply in half, the weights alone, and of matrices alone.
    dequantized = {node.output[0] for node in onnx_graph.node if node.name in graph.recipe.weights}
    alone = [node for node in onnx_graph.node if set(node.input) & dequantized]
    assert len(graph.recipe.weights) == len(dequantized) > 0
    assert {node.op_type for node in alone} == {"MatMul", "Gemm"}
    assert eight_bit == {*graph.recipe.nodes, *(node.name for node in alone)}
    assert not {*graph.recipe.nodes} & {node.name for node in alone}
    stored = {each.data_type for each in onnx_graph.initializer if each.name.endswith(".q")}
    matrices = TensorProto.INT8 if quantization is Quantization.INT8 else TensorProto.FLOAT8E4M3FN
    assert stored == {TensorProto.INT8, matrices}
    assert Bundle.open(half).quantizations() == ()


@pytest.mark.parametrize("quantization", Quantization)
def test_a_picture_in_8_bits_is_near_the_one_in_half(
    quantization: Quantization, eight: Path
) -> None:
    def drawn(asked: Quantization | str | None) -> Result:
        with FaceDiffuser.open(
            eight, provider="onnxruntime-cpu", threads=1, quantization=asked
        ) as face_diffuser:
            return face_diffuser.generate(small())

    own, found = drawn(None), drawn(str(quantization))
    assert (own.quantization, found.quantization) == (None, quantization)
    # A step's noise is off by what the gate lets through, and so is each of three.
    assert 1e-5 < relative_l2(found.array, own.array) < 3 * 5e-2


def test_an_unchanged_build_keeps_its_8_bits_and_one_without_them_has_none(
    eight_copy: Path,
) -> None:
    before, said = _contents(eight_copy), list[str]()
    _build(eight_copy, tuple(Quantization), said)
    assert sum("tdm_unet in" in text and "unchanged, kept" in text for text in said) == 2
    assert not any("calibrating" in text for text in said)
    assert _contents(eight_copy) == before
    _build(eight_copy, (Quantization.INT8,), said := [])
    assert Bundle.open(eight_copy).quantizations() == (Quantization.INT8,)
    assert not any(".fp8." in name for name in _contents(eight_copy))
    assert not any("calibrating" in text for text in said)
    _build(eight_copy, (), [])
    assert Bundle.open(eight_copy).quantizations() == ()
    assert {name for name in before if ".int8." not in name and ".fp8." not in name} == set(
        _contents(eight_copy)
    )
    with pytest.raises(BundleNotFoundError, match="--int8"):
        FaceDiffuser.open(eight_copy, quantization="int8")


def _again(
    bundle: Path, calibration: Calibration = CALIBRATION
) -> tuple[QuantizedGraph, list[str]]:
    """INT8 once more beside the components that are there, and what is said of it."""
    text, said = (bundle / MANIFEST_NAME).read_text(), list[str]()
    manifest = Manifest.from_json(text, str(bundle))
    with small_checkpoint() as source:
        records = quantized_components(
            bundle, source, manifest.dimensions, manifest.components, (Quantization.INT8,),
            calibration, said.append,
        )  # fmt: skip
    assert records[Component.SDM_UNET] == records[Component.TDM_UNET]
    assert set(records[Component.TDM_UNET].quantized) == {Quantization.INT8}
    return records[Component.TDM_UNET].quantized[Quantization.INT8], said


def test_8_bits_of_other_pictures_or_damaged_files_are_made_again(eight_copy: Path) -> None:
    before = _contents(eight_copy)
    _, said = _again(eight_copy)
    assert said == ["tdm_unet in int8: unchanged, kept"]
    damaged = eight_copy / "onnx" / "tdm_unet.int8.cpu.onnx"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    _, said = _again(eight_copy)
    assert said[0] == "calibrating 8-bit scales on 2 pictures of 4 steps"
    assert _contents(eight_copy) == before, "of the same inputs the same"
    other = replace(CALIBRATION, prompts=CALIBRATION.prompts[:1])
    graph, said = _again(eight_copy, other)
    assert said[0] == "calibrating 8-bit scales on 1 pictures of 4 steps"
    assert (graph.pictures, graph.calibration) == (1, other.digest())


def test_a_drift_too_large_falls_back_to_half_block_by_block(
    eight_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two blocks that may be in 8 bits, where the bound lets one be."""
    monkeypatch.setattr("export.quantization.build._HALF_AT_END", 1)
    journal = eight_copy / "build" / "tdm_unet.int8.json"
    journal.unlink()
    both, _ = _again(eight_copy)
    assert both.recipe.half_blocks == ("up_blocks.0",)
    journal.unlink()
    monkeypatch.setattr("export.quantization.gate._GUIDED_BOUND", both.error.guided * 0.99)
    one, said = _again(eight_copy)
    assert one.error.guided <= one.error.guided_bound < both.error.guided
    (fell,) = [text.split()[3] for text in said if text.endswith("stays in half")]
    assert fell in ("down_blocks.0", "mid_block")
    assert one.recipe.half_blocks == ("up_blocks.0", fell)
    assert len(one.recipe.nodes) > 0
    assert set(one.recipe.nodes) < set(both.recipe.nodes)


def test_a_u_net_that_drifts_with_any_block_publishes_nothing(
    eight_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _contents(eight_copy)
    (eight_copy / "build" / "tdm_unet.int8.json").unlink()
    monkeypatch.setattr("export.quantization.gate._GUIDED_BOUND", 1e-9)
    with pytest.raises(ParityError, match="build without --int8"):
        _again(eight_copy)
    assert not (eight_copy / "build" / "tdm_unet.int8.json").exists()
    assert _contents(eight_copy) == before
