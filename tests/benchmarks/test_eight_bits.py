"""U-Nets in 8 bits on a GPU's doubles: forms that differ as they should, and what the rows say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.device import eight_bits, opened
from benchmarks.device.calls import BoundCall
from benchmarks.device.eight_bits import FORMS, scanned
from benchmarks.schema.gpu import EightBitRow, PointRow
from engines.bundle.files import file_record
from engines.bundle.folder import Bundle
from engines.bundle.plan_record import LibraryName
from engines.contract import NOISE_PREDICTORS
from engines.cuda.gpu import opened_gpu
from engines.engine import Provider
from engines.errors import PlanRefusedError, RequestError
from engines.onnxruntime.cpu import open_on_cpu
from tests.doubles.cuda_driver import CudaDriver
from tests.doubles.host_engine import HostProvider
from tests.doubles.small_quantized import add_quantized

SIDE = 8


@pytest.fixture
def bundle(small_copy: Path) -> Bundle:
    add_quantized(small_copy)
    return Bundle.open(small_copy)


@pytest.fixture
def on_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Bundle]]:
    """A GPU's doubles; the bundles whose plans would have been built are what it yields."""
    built: list[Bundle] = []

    @contextmanager
    def engines_on(bundle: Bundle, provider: Provider) -> Iterator[tuple[Any, ...]]:
        driver = CudaDriver({})
        with opened_gpu(driver) as gpu, ExitStack() as stack:
            yield gpu, gpu.stream(stack), HostProvider(bundle, driver)

    def with_plans(bundle: Bundle, library: LibraryName) -> Bundle:
        built.append(bundle)
        return bundle

    monkeypatch.setattr(opened, "engines_on", engines_on)
    monkeypatch.setattr(eight_bits, "with_plans", with_plans)
    yield built


def _rows(bundle: Bundle) -> list[EightBitRow | PointRow]:
    return list(scanned(bundle, Provider.TENSORRT, side=SIDE, repeats=2))


def test_each_u_net_in_each_form_is_beside_half_precision(
    bundle: Bundle, on_double: list[Bundle]
) -> None:
    rows = [row for row in _rows(bundle) if isinstance(row, EightBitRow)]
    assert [(row.quantization, row.form, row.component) for row in rows] == [
        (quantization, form, component)
        for quantization in ("int8", "fp8")
        for form in FORMS
        for component in NOISE_PREDICTORS
    ]
    assert len(on_double) == 4
    for row in rows:
        assert row.finite
        assert row.relative_l2 is not None
        assert 0 < row.relative_l2 < 0.5
        assert row.p50_ms > 0
        assert row.times_as_fast == pytest.approx(row.half_p50_ms / row.p50_ms, rel=0.05)
    by_form = {(row.quantization, row.form, row.component): row.relative_l2 for row in rows}
    for quantization in ("int8", "fp8"):
        for component in NOISE_PREDICTORS:
            # The same numbers in another form; other numbers.
            same = by_form[quantization, "scales per channel", component]
            assert same == pytest.approx(by_form[quantization, "as published", component])
    assert not list(bundle.path.parent.glob("tmp*"))


def test_numbers_that_are_not_finite_are_told(
    bundle: Bundle, on_double: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = BoundCall.prediction

    def overflowing(call: Any) -> Any:
        found = whole(call)
        if on_double:
            found[0, 0, 0, 0] = np.inf
        return found

    monkeypatch.setattr(BoundCall, "prediction", overflowing)
    rows = [row for row in _rows(bundle) if isinstance(row, EightBitRow)]
    assert [row.finite for row in rows[:4]] == [True, True, False, False]
    assert rows[2].largest is rows[2].relative_l2 is None


def test_a_form_that_is_not_built_leaves_the_others_be(
    bundle: Bundle, on_double: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_plans(bundle: Bundle, library: LibraryName) -> Bundle:
        raise PlanRefusedError("built nothing")

    monkeypatch.setattr(eight_bits, "with_plans", with_plans)
    rows = _rows(bundle)
    assert [row.form for row in rows if isinstance(row, EightBitRow)] == ["as published"] * 4
    assert [(row.point, row.reason) for row in rows if isinstance(row, PointRow)] == [
        (f"{quantization}, {form}", "PlanRefusedError: built nothing")
        for quantization in ("int8", "fp8")
        for form in FORMS[1:]
    ]


def test_without_8_bits_or_plans_there_is_nothing_to_scan(
    bundle: Bundle, small_bundle: Path
) -> None:
    with pytest.raises(RequestError, match="has no U-Nets in 8 bits; add them with"):
        list(scanned(Bundle.open(small_bundle), Provider.TENSORRT, side=SIDE, repeats=1))
    with pytest.raises(RequestError, match="onnxruntime-cuda runs no plans"):
        list(scanned(bundle, Provider.ONNXRUNTIME_CUDA, side=SIDE, repeats=1))


def test_a_form_of_a_bundle_leaves_the_bundle_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    before = {path: file_record(path) for path in bundle.path.rglob("*") if path.is_file()}
    form = eight_bits.with_form(
        bundle, bundle.quantizations()[0], "scales per channel", tmp_path / "b"
    )
    assert form.verify()
    assert {path: file_record(path) for path in bundle.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("form", FORMS[1:])
def test_forms_are_what_they_are_called(form: str, bundle: Bundle, tmp_path: Path) -> None:
    int8 = bundle.quantizations()[0]
    made = eight_bits.with_form(bundle, int8, form, tmp_path / "form").quantized(int8)
    component = NOISE_PREDICTORS[1]
    model = onnx.load(made.path / made.component(component).onnx)
    initializers = {each.name: each for each in model.graph.initializer}
    weights = [
        node for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in initializers
    ]  # fmt: skip
    readers = {name: node.op_type for node in model.graph.node for name in node.input}
    assert {readers[node.output[0]] for node in weights} >= {"Conv", "MatMul"}
    for node in weights:
        weight, scale, zero = (initializers[name] for name in node.input)
        axes = [each.i for each in node.attribute if each.name == "axis"]
        if form == "scales per channel":
            assert numpy_helper.to_array(scale).shape == (weight.dims[axes[0]],) == tuple(zero.dims)
            # Where the output channels are: first of a convolution, last of a matrix product.
            assert axes == [0 if readers[node.output[0]] == "Conv" else len(weight.dims) - 1]
            assert weight.data_type == onnx.TensorProto.INT8
        else:
            assert not axes
            assert not scale.dims
            assert weight.data_type == onnx.TensorProto.FLOAT8E4M3FN
    assert open_on_cpu(made, component, None)
