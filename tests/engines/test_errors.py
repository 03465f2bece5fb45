"""The end of messages about words that are none of the choices."""

from __future__ import annotations

import pytest

from engines.engine import Provider
from engines.errors import did_you_mean


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cuda", "onnxruntime-cuda"),
        ("cpu", "onnxruntime-cpu"),
        ("rtx", "tensorrt-rtx"),
        ("TensorRT", "tensorrt"),
        ("tensorrt_rtx", "tensorrt-rtx"),
        ("onnxruntime_cpu", "onnxruntime-cpu"),
        ("opnvino", "openvino"),
    ],
)
def test_the_nearest_choice_is_named(typed: str, meant: str) -> None:
    assert did_you_mean(typed, Provider) == f'; did you mean "{meant}"?'


@pytest.mark.parametrize("typed", ["", "  ", "directml", "onnxruntime", 5, None, "x" * 10**6])
def test_what_resembles_no_choice_or_two_alike_is_left_alone(typed: object) -> None:
    assert did_you_mean(typed, ("onnxruntime-cuda", "onnxruntime-cup")) == ""
