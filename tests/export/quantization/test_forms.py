"""The forms that a GPU is asked about: made of the shipped one, with its own scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from export.graph.file import load_graph
from export.quantization.forms import fp8_throughout, scales_per_channel
from export.quantization.qdq import Format, quantized_graph
from export.quantization.sites import Kind
from tests.export.quantization.test_qdq import (
    BOTH_INT8,
    MIXED,
    PEAKS,
    half_model,
    initializers,
    inner_sites,
    quantized,
)


def activations(model: ModelProto) -> dict[str, tuple[float, int]]:
    """Scale and type of what each activation is quantized to."""
    tensors = {each.name: each for each in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (tensors[name] for name in node.input[1:])
            found[node.input[0]] = (float(numpy_helper.to_array(scale)), zero.data_type)
    return found


@pytest.mark.parametrize("forms", [BOTH_INT8, MIXED])
def test_fp8_throughout_keeps_what_stands_for_each_activations_peak(
    forms: dict[Kind, Format], tmp_path: Path
) -> None:
    path = half_model(tmp_path)
    made = fp8_throughout(quantized(path, forms, inner_sites(path)), path)
    found = activations(made)
    assert set(found) == set(PEAKS)
    for name, peak in PEAKS.items():
        scale, kind = found[name]
        assert kind == TensorProto.FLOAT8E4M3FN
        # Of a scale in half precision, 11 bits, taken from another of as many.
        assert scale * Format.FP8.top == pytest.approx(peak, rel=2 * 2.0**-11)


def test_weights_alone_in_8_bits_stay_as_they_are_in_both_forms(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    down, q, k, up = inner_sites(path)
    peaks = {(name, form): peak for name, peak in PEAKS.items() for form in Format}
    model = quantized_graph(load_graph(path), [down], peaks, BOTH_INT8, path.parent, stored=[q, up])
    before = initializers(model)
    for made in (fp8_throughout(model, path), scales_per_channel(model, path)):
        after = initializers(made)
        for name in ("val_q", up.weight):
            for part in ("q", "scale", "zero"):
                np.testing.assert_array_equal(after[f"{name}.{part}"], before[f"{name}.{part}"])
        assert f"{k.weight}.q" not in after
        assert activations(made).keys() == {"first"}


def test_scales_per_channel_are_the_one_number_for_every_channel(tmp_path: Path) -> None:
    path = half_model(tmp_path)
    model = quantized(path, BOTH_INT8, inner_sites(path))
    before, after = initializers(model), initializers(scales_per_channel(model, path))
    assert after["val_q.scale"].shape == (5,)
    assert after["unet.up_blocks.0.conv.weight.scale"].shape == (2,)
    for name, value in before.items():
        if name.endswith(".scale"):
            np.testing.assert_array_equal(after[name], np.full(after[name].shape, value))
    # An activation's own stay one number.
    assert activations(model).keys() == activations(scales_per_channel(model, path)).keys()
