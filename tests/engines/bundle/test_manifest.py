"""A manifest says what it said when it was written, or is no manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle.files import FileRecord
from engines.bundle.folder import Bundle
from engines.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    ComponentRecord,
    Dimensions,
    Fp32Island,
    Manifest,
    NoiseSchedule,
    Parity,
    Precision,
)
from engines.bundle.plan_record import LibraryName
from engines.contract import Component
from engines.errors import BundleCorruptError, BundleSchemaError
from tests.doubles.small_bundle import DIMENSIONS
from tests.doubles.small_plans import add_plans

_DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
_FILE = st.builds(FileRecord, nbytes=st.integers(0, 2**40), sha256=_DIGEST)
_TEXT = st.text(max_size=8)
_POSITIVE = st.floats(0, 1e6)
_PARITY = st.builds(Parity, relative_l2=_POSITIVE, bound=_POSITIVE, cases=st.integers(1, 9))
_ISLAND = st.builds(Fp32Island, module=_TEXT, error_in_half=_POSITIVE, error_with_island=_POSITIVE)
_SIZE = st.integers(1, 65536)
_LEVELS = st.tuples(*[st.floats(-1000, 1000)] * 3)


def _names(component: str) -> tuple[str, str, str]:
    return f"onnx/{component}.onnx", f"onnx/{component}.cpu.onnx", f"onnx/{component}.data"


@st.composite
def _component(draw: st.DrawFn, component: Component) -> ComponentRecord:
    graph, cpu_graph, weights = _names(component)
    return ComponentRecord(
        input_digest=draw(_TEXT),
        onnx=graph,
        cpu_onnx=cpu_graph,
        files={name: draw(_FILE) for name in (graph, cpu_graph, weights)},
        parity=draw(st.dictionaries(st.sampled_from(["onnx", "cpu_onnx"]), _PARITY)),
        fp32_islands=draw(st.lists(_ISLAND, max_size=2)),
    )


_MANIFESTS = st.builds(
    Manifest,
    schema_version=st.just(SCHEMA_VERSION),
    precision=st.sampled_from(Precision),
    opset=st.integers(1, 30),
    dimensions=st.builds(
        Dimensions,
        **dict.fromkeys(
            ["tokens", "text_width", "subject_width", "latent_channels", "image_px", "native_px"],
            _SIZE,
        ),
        image_mean=_LEVELS,
        image_std=st.tuples(*[st.floats(1e-6, 1000)] * 3),
    ),
    noise_schedule=st.builds(
        NoiseSchedule,
        num_train_timesteps=st.integers(1, 100_000),
        beta_start=st.floats(1e-9, 0.999),
        beta_end=st.floats(1e-9, 0.999),
        beta_schedule=st.sampled_from(["scaled_linear", "linear"]),
        steps_offset=st.integers(0, 1000),
        set_alpha_to_one=st.booleans(),
    ),
    components=st.fixed_dictionaries({each: _component(each) for each in Component}),
    files=st.dictionaries(st.sampled_from(["tokenizer/tokenizer.json", "a b/ä.png"]), _FILE),
    pipeline_parity=st.dictionaries(_TEXT, _POSITIVE, max_size=2),
    sources=st.dictionaries(_TEXT, _TEXT, max_size=2),
    tools=st.dictionaries(_TEXT, _TEXT, max_size=2),
    licenses=st.lists(_TEXT, max_size=2),
    timing_cache=st.dictionaries(st.just("timing.cache"), _FILE),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(_MANIFESTS)
def test_a_manifest_that_was_written_is_read_again(manifest: Manifest) -> None:
    text = manifest.to_json()
    again = Manifest.from_json(text, "bundle")
    assert again == manifest
    assert again.to_json() == text
    assert json.loads(text)["digest"] == manifest.digest()


def test_a_manifest_with_plans_is_read_again(small_copy: Path) -> None:
    add_plans(small_copy)
    add_plans(small_copy, library=LibraryName.TENSORRT_RTX, version="1.7.1.116")
    manifest = Bundle.open(small_copy).manifest
    assert len(manifest.plans) == 12
    assert Manifest.from_json(manifest.to_json(), "bundle") == manifest


def _document(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / MANIFEST_NAME).read_text())
    del document["digest"]  # so that what is wrong is found by what it says
    return document


@pytest.mark.parametrize("component", Component)
def test_a_manifest_without_a_component_is_incomplete(
    component: Component, small_copy: Path
) -> None:
    document = _document(small_copy)
    del document["components"][component]
    (small_copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleCorruptError, match=f"components missing: {component}.*export.build"):
        Bundle.open(small_copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "fp8"}, "precision must be fp16 or fp32"),
        ({"files": []}, "files must be an object"),
        ({"components": None}, "components must be an object"),
        ({"plans": [{}]}, r"plans\[0\].* is missing"),
        ({"dimensions": 3}, "dimensions must be an object"),
        ({"opset": "20"}, "opset must be an integer"),
        ({"digest": "0" * 64}, "its text is not the one that its digest was made of"),
        ({"licences": []}, "unknown fields: licences"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    change: dict[str, Any], words: str, small_copy: Path
) -> None:
    document = _document(small_copy) | change
    (small_copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleCorruptError, match=f"incomplete or altered.*{words}"):
        Bundle.open(small_copy)


def test_a_component_lists_its_own_graphs(small_copy: Path) -> None:
    for key in ("onnx", "cpu_onnx"):
        document = _document(small_copy)
        tdm = document["components"]["tdm_unet"]
        del tdm["files"][tdm[key]]
        with pytest.raises(BundleCorruptError, match="is not among the component's files"):
            Manifest.from_json(json.dumps(document), "bundle")


@pytest.mark.parametrize("text", [b"\xff", b"{\xff", b'"\xff"', b"3", b"null", b"{}"])
def test_bytes_that_are_no_text_are_no_manifest(text: bytes, small_copy: Path) -> None:
    (small_copy / MANIFEST_NAME).write_bytes(text)
    with pytest.raises(BundleCorruptError, match="is not a manifest"):
        Bundle.open(small_copy)


def test_an_older_schema_is_told_from_damage() -> None:
    with pytest.raises(BundleSchemaError, match=rf"schema 3, .* reads {SCHEMA_VERSION}"):
        Manifest.from_json('{"schema_version": 3}', "bundle")


def test_what_plans_are_built_from_is_the_graph_and_its_weights(small_copy: Path) -> None:
    record = Bundle.open(small_copy).component(Component.SDM_UNET)
    graph, cpu_graph, weights = _names(Component.SDM_UNET)

    def altered(name: str) -> ComponentRecord:
        files = dict(record.files)
        files[name] = replace(files[name], sha256="0" * 64)
        return replace(record, files=files)

    digests = [altered(name).onnx_digest() for name in (graph, weights, cpu_graph)]
    assert len({record.onnx_digest(), *digests[:2]}) == 3, "another graph or other weights"
    assert digests[2] == record.onnx_digest(), "no plan is built from the CPU's graph"
    assert record.onnx_nbytes() == record.files[graph].nbytes + record.files[weights].nbytes
    embedded = replace(record, files={name: record.files[name] for name in (graph, cpu_graph)})
    assert embedded.onnx_nbytes() == record.files[graph].nbytes


def test_every_file_of_a_bundle_is_listed(small_copy: Path) -> None:
    add_plans(small_copy)
    manifest = Bundle.open(small_copy).manifest
    on_disk = {
        path.relative_to(small_copy).as_posix() for path in small_copy.rglob("*") if path.is_file()
    }
    assert set(manifest.all_files()) == on_disk - {MANIFEST_NAME}
    assert {name.partition("/")[0] for name in manifest.plan_files()} == {"plans"}
    cached = replace(manifest, timing_cache={"timing.cache": FileRecord(nbytes=0, sha256="0" * 64)})
    assert set(cached.plan_files()) - set(manifest.plan_files()) == {"timing.cache"}
    assert cached.digest() != manifest.digest()


def test_the_contracts_sizes_are_the_models() -> None:
    sizes = DIMENSIONS.sizes()
    assert sizes == {
        "tokens": 77, "text_width": 8, "subject_width": 8, "latent_channels": 4, "image_px": 16,
    }  # fmt: skip
