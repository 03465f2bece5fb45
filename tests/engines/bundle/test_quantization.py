"""A bundle with U-Nets in 8 bits speaks of them when it is asked to, and checks them as its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Manifest
from engines.bundle.quantization import Quantization, QuantizedGraph
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import BundleCorruptError, BundleNotFoundError, RequestError
from tests.doubles.small_quantized import add_quantized

INT8, FP8 = Quantization


@pytest.fixture
def quantized_copy(small_copy: Path) -> Path:
    add_quantized(small_copy)
    return small_copy


def test_both_u_nets_change_their_graphs_and_nothing_else_does(quantized_copy: Path) -> None:
    bundle = Bundle.open(quantized_copy)
    assert bundle.quantizations() == (INT8, FP8)
    for quantization in (INT8, FP8, "fp8"):
        asked = bundle.quantized(quantization)
        assert asked.quantization == quantization
        for component in Component:
            own, record = bundle.component(component), asked.component(component)
            if component in NOISE_PREDICTORS:
                stem = f"onnx/{component}.{quantization}"
                assert (record.onnx, record.cpu_onnx) == (f"{stem}.onnx", f"{stem}.cpu.onnx")
                assert set(record.files) == {record.onnx, record.cpu_onnx}
                assert record.onnx_digest() != own.onnx_digest()
            else:
                assert record == own
    assert asked.quantized(None) == bundle


def test_verifying_looks_at_the_graphs_of_every_kind(quantized_copy: Path) -> None:
    bundle = Bundle.open(quantized_copy)
    assert bundle.verify() == 19 + 2 * 2 * 2
    path = quantized_copy / "onnx" / "sdm_unet.fp8.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleCorruptError, match=r"sdm_unet\.fp8\.onnx was altered"):
        bundle.verify()
    with pytest.raises(BundleCorruptError, match=r"sdm_unet\.fp8\.onnx was altered"):
        bundle.quantized(FP8).verify_component(Component.SDM_UNET)
    for whole in (bundle, bundle.quantized(INT8)):
        whole.verify_component(Component.SDM_UNET)
    path.unlink()
    with pytest.raises(BundleCorruptError, match=r"sdm_unet\.fp8\.onnx is missing"):
        Bundle.open(quantized_copy)


def test_a_kind_that_one_u_net_lacks_cannot_be_asked_for(small_copy: Path) -> None:
    with pytest.raises(
        BundleNotFoundError,
        match=r"no U-Nets in int8 \(in 8 bits: none\).*python -m export\.build .*--int8",
    ):
        Bundle.open(small_copy).quantized("int8")
    add_quantized(small_copy, (INT8, FP8), (Component.TDM_UNET,))
    add_quantized(small_copy, (INT8,), (Component.SDM_UNET,))
    bundle = Bundle.open(small_copy)
    assert bundle.quantizations() == (INT8,)
    assert bundle.quantized("int8").quantization is INT8
    with pytest.raises(BundleNotFoundError, match=r"no U-Nets in fp8 \(in 8 bits: int8\).*--fp8"):
        bundle.quantized(FP8)


def test_an_unknown_word_is_refused_with_those_there_are(quantized_copy: Path) -> None:
    with pytest.raises(RequestError, match=r"one of int8, fp8, got 'int08'; did you mean \"int8\""):
        Bundle.open(quantized_copy).quantized("int08")


def test_a_manifest_tells_all_of_the_8_bit_graphs(quantized_copy: Path) -> None:
    manifest = Bundle.open(quantized_copy).manifest
    assert Manifest.from_json(manifest.to_json(), "bundle") == manifest
    record = manifest.components[Component.TDM_UNET]
    graph = record.quantized[INT8]
    # Another drift, recipe or file is another bundle.
    for other in (
        replace(graph, error=replace(graph.error, call=0.011)),
        replace(graph, recipe=replace(graph.recipe, half_blocks=())),
    ):
        changed = replace(record, quantized=record.quantized | {INT8: other})
        components = manifest.components | {Component.TDM_UNET: changed}
        assert replace(manifest, components=components).digest() != manifest.digest()


@pytest.mark.parametrize("name", ["onnx", "cpu_onnx"])
def test_a_graph_is_among_its_files(name: str, quantized_copy: Path) -> None:
    manifest = Bundle.open(quantized_copy).manifest
    graph: QuantizedGraph = manifest.components[Component.TDM_UNET].quantized[INT8]
    files = {each: file for each, file in graph.files.items() if each != getattr(graph, name)}
    with pytest.raises(ValueError, match=f"{getattr(graph, name)} is not among"):
        replace(graph, files=files)
