"""Bisecting names the layer that drifts and the float32 island that fixes it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from export.bisect import __main__ as bisect
from export.bisect.__main__ import find_drift
from export.bisect.compare import TensorError
from export.bisect.islands import rounded, with_island
from tests.doubles.small_bundle import half_bundle


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half_bundle(tmp_path_factory.mktemp("overflowing") / "bundle", overflows=True)


def test_a_value_too_large_for_half_precision_is_found_and_fixed(
    overflowing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect.main([str(overflowing), "fusion_mlp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["layer"], found["operator"]) == ("node_large", "Mul")
    assert found["island"] == ["node_large", "node_small_again"]
    assert found["output_error"] is None
    assert found["fixed_error"] <= found["bound"]


@pytest.mark.slow
def test_polygraphy_cuts_the_graph_down_to_the_part_that_drifts(
    overflowing: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part.onnx"
    assert bisect.main([str(overflowing), "fusion_mlp", "--reduce", str(part)]) == 0
    assert [node.op_type for node in onnx.load(part).graph.node] == ["Concat", "MatMul", "Mul"]
    assert bisect.main([str(overflowing), "fusion_mlp", "--part", str(part)]) == 1


@pytest.mark.parametrize("component", ["tdm_unet", "text_encoder"])
def test_a_component_without_drift_says_how_exact_it_is(
    component: str, small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect.main([str(small_bundle), component]) == 0
    assert "no layer drifts beyond" in capsys.readouterr().out


def test_a_size_that_cannot_be_is_named(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect.main([str(small_bundle), "tdm_unet", "--size", "100"]) == 1
    assert "expected a multiple of 64" in capsys.readouterr().err


def test_tensorrt_that_is_missing_is_named(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect.main([str(small_bundle), "fusion_mlp", "--backend", "tensorrt"]) == 1
    assert "TensorRT is not installed" in capsys.readouterr().err.splitlines()[-1]


def test_a_drift_that_no_island_fixes_is_said_not_to_be_rounding(small_bundle: Path) -> None:
    model = onnx.load(small_bundle / "onnx" / "text_encoder.onnx")
    wrong = {name: TensorError(0.5, 5e-3) for node in model.graph.node for name in node.output}
    drift = find_drift(model, "text_embeds", 5e-3, lambda _: wrong)
    assert drift.layer == model.graph.node[0].name
    assert drift.sentence().endswith("so rounding alone is not the reason")


def test_an_island_has_casts_at_its_shores_and_none_inside(overflowing: Path) -> None:
    model = onnx.load(overflowing / "onnx" / "fusion_mlp.onnx")
    island = with_island(model, ["node_large", "node_small_again"])
    onnx.checker.check_model(island)
    nodes = [node.op_type for node in island.graph.node]
    start = nodes.index("Mul")
    expected = ["Cast", "Cast", "Mul", "Cast", "Cast", "Div", "Cast"]
    assert nodes[start - 2 : start + 5] == expected
    assert "large.exact" in island.graph.node[start + 3].input, "nothing is rounded in between"


def test_rounding_leaves_no_node_in_half_precision_and_every_tensor_rounded(
    overflowing: Path,
) -> None:
    model = onnx.load(overflowing / "onnx" / "fusion_mlp.onnx")
    nodes = rounded(model).graph.node
    casts = {name for node in nodes if node.op_type == "Cast" for name in node.output}
    assert {"matmul1", "large", "small_again", "augmented_embeds"} <= casts
    divide = next(node for node in nodes if node.op_type == "Div")
    assert divide.input[0] == "large.widened", "not what was there before rounding"
