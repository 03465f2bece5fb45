"""The graph surgery: what is stored in 8 bits, at which scales, and what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.gate import relative_l2
from export.graph.cpu_graph import cpu_graph
from export.graph.file import load_graph, load_whole
from export.quantization.qdq import Format, quantized_graph, save_beside
from export.quantization.sites import (
    Kind,
    Site,
    blocks_of,
    output_axis,
    sites_of,
    stored_sites,
)

WEIGHTS = {
    "unet.conv_in.weight": (4, 3, 3, 3),
    "unet.down_blocks.0.conv.weight": (4, 4, 3, 3),
    "val_q": (5, 5),
    "val_k": (5, 5),
    "unet.up_blocks.0.conv.weight": (2, 4, 1, 1),
    "unet.conv_out.weight": (2, 2, 3, 3),
}
# Nearly all of each activation; what is larger is clipped.
PEAKS = {"first": 12.0, "second": 75.0, "fifth": 250.0}


def weights() -> dict[str, npt.NDArray[np.float16]]:
    random = np.random.RandomState(7)
    return {
        name: random.standard_normal(shape).astype(np.float16) for name, shape in WEIGHTS.items()
    }


def half_model(folder: Path) -> Path:
    """A U-Net in small: three convolutions in a row, two matrices that read one activation."""
    conv: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["latents", "unet.conv_in.weight"], ["first"], "in", **conv),
        helper.make_node(
            "Conv", ["first", "unet.down_blocks.0.conv.weight"], ["second"], "down", **conv
        ),
        helper.make_node("MatMul", ["second", "val_q"], ["third"], "q"),
        helper.make_node("MatMul", ["second", "val_k"], ["fourth"], "k"),
        helper.make_node("Add", ["third", "fourth"], ["fifth"], "sum"),
        helper.make_node("Conv", ["fifth", "unet.up_blocks.0.conv.weight"], ["sixth"], "up"),
        helper.make_node("Conv", ["sixth", "unet.conv_out.weight"], ["answer"], "out", **conv),
    ]
    half = TensorProto.FLOAT16
    graph = helper.make_graph(
        nodes,
        "unet",
        [helper.make_tensor_value_info("latents", half, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("answer", half, [1, 2, 5, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    model.ir_version = 11
    path = folder / "unet.onnx"
    onnx.save(
        model, path, save_as_external_data=True, location="unet.data", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    return path


def inner_sites(path: Path) -> list[Site]:
    return sites_of(load_graph(path))


def quantized(path: Path, forms: dict[Kind, Format], sites: list[Site]) -> ModelProto:
    peaks = {(name, form): peak for name, peak in PEAKS.items() for form in Format}
    return quantized_graph(load_graph(path), sites, peaks, forms, path.parent)


def initializers(model: ModelProto) -> dict[str, Any]:
    return {
        each.name: numpy_helper.to_array(each)
        for each in model.graph.initializer
        if not each.external_data
    }


def answer(path: Path, latents: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    cpu = path.with_suffix(".cpu.onnx")
    onnx.save(cpu_graph(load_graph(path)), cpu)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(cpu, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"latents": latents})
    return np.asarray(found, np.float32)


BOTH_INT8 = {Kind.MATRIX: Format.INT8, Kind.CONVOLUTION: Format.INT8}
MIXED = {Kind.MATRIX: Format.FP8, Kind.CONVOLUTION: Format.INT8}


def test_sites_are_all_products_between_the_ends_in_their_blocks(tmp_path: Path) -> None:
    sites = inner_sites(half_model(tmp_path))
    assert [(site.node, site.kind, site.block) for site in sites] == [
        ("down", Kind.CONVOLUTION, "down_blocks.0"),
        # Whose weights lost their names lie where the named weight before them does.
        ("q", Kind.MATRIX, "down_blocks.0"),
        ("k", Kind.MATRIX, "down_blocks.0"),
        ("up", Kind.CONVOLUTION, "up_blocks.0"),
    ]
    assert blocks_of(sites) == ["down_blocks.0", "up_blocks.0"]


def test_matrices_that_read_one_activation_share_one_scale_and_one_pair(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    model = quantized(path, BOTH_INT8, inner_sites(path))
    found = initializers(model)
    both = max(np.abs(weights()[name]).max() for name in ("val_q", "val_k"))
    assert found["val_q.scale"] == found["val_k.scale"] == np.float16(np.float32(both) / 127)
    assert all(value.shape == () for name, value in found.items() if name.endswith(".scale"))
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(node.input[0] for node in quantizers) == ["fifth", "first", "second"]


def test_weights_are_stored_in_8_bits_and_quantized_by_nothing_else(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    model = quantized(path, MIXED, inner_sites(path))
    kinds = {each.name: each.data_type for each in model.graph.initializer}
    assert kinds["val_q.q"] == TensorProto.FLOAT8E4M3FN
    assert kinds["unet.up_blocks.0.conv.weight.q"] == TensorProto.INT8
    assert "val_q" not in kinds
    assert kinds["unet.conv_in.weight"] == TensorProto.FLOAT16
    quantizers = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert not set(quantizers) & {*WEIGHTS}


def test_products_that_were_not_asked_for_stay_as_they_are(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    asked = [site for site in inner_sites(path) if site.node == "up"]
    model = quantized(path, BOTH_INT8, asked)
    before = {node.name: node for node in load_graph(path).graph.node}
    after = {node.name: node for node in model.graph.node}
    assert all(after[name] == node for name, node in before.items() if name != "up")
    assert after["up"] != before["up"]


@pytest.mark.parametrize("forms", [BOTH_INT8, MIXED])
def test_the_graph_computes_what_its_numbers_say(forms: dict[Kind, Format], tmp_path: Path) -> None:
    path = half_model(tmp_path)
    out = tmp_path / "made" / "unet.onnx"
    out.parent.mkdir()
    save_beside(quantized(path, forms, inner_sites(path)), path, out)
    # Nothing of it refers to the file it was made from.
    (tmp_path / "unet.data").rename(tmp_path / "gone")
    latents = np.random.RandomState(1).standard_normal((1, 3, 5, 5)).astype(np.float32)
    found = answer(out, latents)
    twin = _twin(latents, forms)
    np.testing.assert_allclose(found, twin, rtol=1e-4, atol=1e-3)  # sums in another order
    (tmp_path / "gone").rename(tmp_path / "unet.data")
    exact = answer(path, latents)
    assert 1e-2 < relative_l2(found, exact) < 1e-1


def _twin(latents: npt.NDArray[np.float32], forms: dict[Kind, Format]) -> npt.NDArray[np.float32]:
    """The same in plain NumPy, from the definition of each format."""
    given = {name: value.astype(np.float32) for name, value in weights().items()}

    def rounded(values: Any, peak: float, form: Format) -> Any:
        top = {Format.INT8: 127.0, Format.FP8: 448.0}[form]
        scale = np.float32(np.float16(np.float32(peak) / np.float32(top)))
        units = np.clip(values / scale, -top, top)
        if form is Format.INT8:
            return np.rint(units) * scale
        return units.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale

    def conv(values: Any, weight: Any) -> Any:
        pad = weight.shape[-1] // 2
        wide = np.pad(values, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        size = values.shape[-1]
        windows = [
            np.einsum("bchw,oc->bohw", wide[:, :, y : y + size, x : x + size], weight[:, :, y, x])
            for y in range(weight.shape[-2])
            for x in range(weight.shape[-1])
        ]
        return np.sum(windows, axis=0)

    def conv_in_8(values: Any, name: str, peak: float) -> Any:
        form, weight = forms[Kind.CONVOLUTION], given[name]
        return conv(rounded(values, peak, form), rounded(weight, float(np.abs(weight).max()), form))

    first = conv(latents, given["unet.conv_in.weight"])
    second = conv_in_8(first, "unet.down_blocks.0.conv.weight", PEAKS["first"])
    form = forms[Kind.MATRIX]
    shared = max(float(np.abs(given[name]).max()) for name in ("val_q", "val_k"))
    seen = rounded(second, PEAKS["second"], form)
    fifth = sum(seen @ rounded(given[name], shared, form) for name in ("val_q", "val_k"))
    sixth = conv_in_8(fifth, "unet.up_blocks.0.conv.weight", PEAKS["fifth"])
    return np.asarray(conv(sixth, given["unet.conv_out.weight"]), np.float32)


@pytest.mark.parametrize("form", list(Format))
def test_an_activation_that_is_always_zero_still_has_a_normal_scale(form: Format) -> None:
    assert form.scale(0.0) == np.float16(2.0**-14)


def test_a_weight_alone_in_8_bits_has_a_scale_for_each_output_channel(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    down, q, k, up = inner_sites(path)
    peaks = {(name, form): peak for name, peak in PEAKS.items() for form in Format}
    model = quantized_graph(
        load_graph(path), [down, q], peaks, BOTH_INT8, path.parent, stored=[k, up]
    )
    found, own = initializers(model), weights()
    for name, axis, shape in (("val_k", 1, (1, -1)), (up.weight, 0, (-1, 1, 1, 1))):
        others = tuple(each for each in range(own[name].ndim) if each != axis)
        scale = found[f"{name}.scale"]
        assert np.array_equal(scale, (np.abs(own[name]).max(others) / 127).astype(np.float16))
        assert np.abs(found[f"{name}.q"]).max(others).min() >= 126
        numbers = found[f"{name}.q"].astype(np.float32) * scale.astype(np.float32).reshape(shape)
        assert np.abs(numbers - own[name]).max() <= scale.max()
        assert found[f"{name}.zero"].shape == scale.shape and not found[f"{name}.zero"].any()
    # What they multiply is in half: neither reads a dequantized activation.
    read = {node.name: node.input[0] for node in model.graph.node}
    assert (read["k"], read["up"]) == ("second", "fifth")
    assert read["q"] == "second.int8.dq"
    save_beside(model, path, tmp_path / "eight.onnx")
    latents = np.random.RandomState(1).standard_normal((1, 3, 5, 5)).astype(np.float32)
    error = relative_l2(answer(tmp_path / "eight.onnx", latents), answer(path, latents))
    whole = quantized(path, BOTH_INT8, inner_sites(path))
    save_beside(whole, path, tmp_path / "whole.onnx")
    assert 0 < error < relative_l2(answer(tmp_path / "whole.onnx", latents), answer(path, latents))


def test_weights_whose_file_has_a_second_name_are_read(tmp_path: Path) -> None:
    """As a build's are that it takes over from the bundle before."""
    path = half_model(tmp_path)
    (tmp_path / "second.data").hardlink_to(tmp_path / "unet.data")
    model = quantized(path, BOTH_INT8, inner_sites(path))
    save_beside(model, path, tmp_path / "eight.onnx")
    whole = load_whole(path)
    for name, values in weights().items():
        assert np.array_equal(initializers(whole)[name], values)
    assert np.array_equal(
        initializers(load_whole(tmp_path / "eight.onnx"))["unet.conv_in.weight"],
        weights()["unet.conv_in.weight"],
    )


def test_weights_that_end_too_early_are_refused(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    data = tmp_path / "unet.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"unet\.data ends within unet\.conv_out\.weight"):
        load_whole(path)


def test_weights_alone_in_8_bits_are_of_matrices_but_for_what_widens_in_the_last_block() -> None:
    matrix, convolution = Kind.MATRIX, Kind.CONVOLUTION
    sites = [
        Site(node=node, kind=kind, activation="x", weight=node, block=block, widens=node.isupper())
        for node, kind, block in (
            ("a", matrix, "mid_block"),
            ("b", matrix, "up_blocks.0"),
            ("B", matrix, "up_blocks.0"),
            ("c", convolution, "up_blocks.0"),
            ("d", matrix, "up_blocks.1"),
            ("D", matrix, "up_blocks.1"),
            ("e", convolution, "up_blocks.1"),
        )
    ]

    def stored(*half: str) -> str:
        return "".join(each.node for each in stored_sites(sites, half))

    assert stored("up_blocks.0", "up_blocks.1") == "bBd"
    assert stored("mid_block", "up_blocks.1") == "ad"
    assert stored() == ""


@pytest.mark.parametrize(
    ("op", "shape", "widens"),
    [
        ("MatMul", (4, 17), True),
        ("MatMul", (4, 16), False),
        ("MatMul", (17, 4), False),
        ("Gemm", (17, 4), True),
        ("Gemm", (4, 17), False),
        ("Conv", (17, 4, 1, 1), False),
    ],
)
def test_what_widens_has_more_than_four_outputs_for_each_input(
    op: str, shape: tuple[int, ...], *, widens: bool
) -> None:
    more: dict[str, Any] = {"transB": 1} if op == "Gemm" else {}
    node = helper.make_node(op, ["x", "unet.mid_block.w"], ["y"], **more)
    weight = numpy_helper.from_array(np.zeros(shape, np.float16), "unet.mid_block.w")
    (site,) = sites_of(helper.make_model(helper.make_graph([node], "unet", [], [], [weight])))
    assert site.widens is widens


def test_output_channels_lie_where_each_kind_of_product_has_them() -> None:
    transposed = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    assert output_axis(transposed, 2) == 0
    assert output_axis(helper.make_node("Gemm", ["x", "w"], ["y"], transB=0), 2) == 1
    assert output_axis(helper.make_node("MatMul", ["x", "w"], ["y"]), 2) == 1
    assert output_axis(helper.make_node("Conv", ["x", "w"], ["y"]), 4) == 0
