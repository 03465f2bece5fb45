"""What Polygraphy's lint is given to look at."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from export.graph.file import load_graph
from export.graph.lint import LintError, polygraphy_lint

_EXTERNAL = onnx.TensorProto.EXTERNAL


def test_weights_of_the_file_become_inputs_and_small_constants_stay(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a graph gets lost on the way."""
    path = small_bundle / "onnx" / "tdm_unet.onnx"
    whole = load_graph(path).graph
    given: list[onnx.GraphProto] = []
    save = onnx.save

    def kept(model: onnx.ModelProto, where: Path) -> None:
        given.append(model.graph)
        save(model, where)

    monkeypatch.setattr("export.graph.lint.onnx.save", kept)
    polygraphy_lint(path)
    (graph,) = given
    large = [each for each in whole.initializer if each.data_location == _EXTERNAL]
    small = [each for each in whole.initializer if each.data_location != _EXTERNAL]
    assert large and small
    assert list(graph.initializer) == small
    added = list(graph.input)[len(whole.input) :]
    assert [each.name for each in added] == [each.name for each in large]
    for value, weight in zip(added, large, strict=True):
        found = value.type.tensor_type
        assert found.elem_type == weight.data_type
        assert [size.dim_value for size in found.shape.dim] == list(weight.dims)


def test_a_graph_that_polygraphy_cannot_read_is_said_to_be_its(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.graph.lint.sys.executable", "/bin/false")
    with pytest.raises(LintError, match=r"polygraphy could not lint sdm_unet\.onnx"):
        polygraphy_lint(small_bundle / "onnx" / "sdm_unet.onnx")
