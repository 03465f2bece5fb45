"""A build in half precision, of a model of one layer everywhere, from checkpoint to picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component, ElementType
from engines.gate import bound_of
from export.bundle import build_bundle
from export.checks.picture import NOISE_PREVIEW
from export.graph.lint import LintError, lint
from export.options import BuildOptions
from tests.doubles.small_checkpoint import draw_here, small_checkpoint

KINDS = {
    ElementType.FLOAT: TensorProto.FLOAT16, ElementType.FLOAT32: TensorProto.FLOAT,
    ElementType.INT32: TensorProto.INT32, ElementType.BOOL: TensorProto.BOOL,
}  # fmt: skip


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
    assert bundle.verify() == 5 * 3 + 2
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
