"""One component of a build: what stays in float32 and why, what is kept, what makes it anew."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from engines import gate
from engines.bundle.files import sha256_of_file
from engines.bundle.manifest import ComponentRecord, Precision
from engines.contract import Component
from engines.gate import bound_of
from export import component as building
from export.checkpoint import random_weights
from export.checkpoint.model_facts import dimensions_of
from export.component import (
    build_component,
    built_component,
    input_digest,
    published,
)
from export.graph.modules import library_module, wrapped
from export.graph.unet import BatchedPassesUNet
from export.options import BuildOptions
from tests.doubles.small_checkpoint import SmallCheckpoint, small_checkpoint

MLP = Component.FUSION_MLP
HALF = BuildOptions(precision=Precision.FP16)


@pytest.fixture(scope="module")
def source() -> Iterator[SmallCheckpoint]:
    with small_checkpoint() as checkpoint:
        yield checkpoint


@pytest.fixture(scope="module")
def built(
    source: SmallCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ComponentRecord, list[str]]:
    """The bundle's folder, what was recorded and what was said while it was made."""
    bundle, said = tmp_path_factory.mktemp("component") / "bundle", list[str]()
    leftover = bundle / "build" / MLP / "of an earlier build.onnx"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    record = build_component(bundle, MLP, source, dimensions_of(source), HALF, said.append)
    return bundle, record, said


@pytest.mark.parametrize("cosine_first", [True, False])
@pytest.mark.parametrize("freq_shift", [0, 1])
def test_the_timesteps_angles_stay_in_float32_in_either_order(
    source: SmallCheckpoint, *, cosine_first: bool, freq_shift: int
) -> None:
    config = random_weights.UNET_CONFIG | {
        "flip_sin_to_cos": cosine_first, "freq_shift": freq_shift,
    }  # fmt: skip
    unet = BatchedPassesUNet(UNet2DConditionModel(**config).eval())
    (island,) = building._fp32_islands(Component.TDM_UNET, unet)
    assert island.module == "time_proj"

    half = config["block_out_channels"][0] // 2
    frequencies = np.exp(-np.log(10000) * np.arange(half) / (half - freq_shift))
    angles = np.arange(1000)[:, None] * frequencies
    exact = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    rounded = (np.arange(1000)[:, None] * frequencies.astype(np.float32)).astype(np.float16)
    in_half = np.concatenate([np.cos(np.float32(rounded)), np.sin(np.float32(rounded))], axis=1)
    expected = np.linalg.norm(in_half - exact) / np.linalg.norm(exact)
    assert island.error_in_half == pytest.approx(expected, rel=0.05)
    assert 5e-5 < island.error_with_island < 2.0**-11  # half an ulp of half precision, at most
    assert island.error_in_half > 50 * island.error_with_island


def test_what_is_no_unet_has_no_island(source: SmallCheckpoint) -> None:
    mlp = wrapped(MLP, library_module(MLP, source))
    assert building._fp32_islands(MLP, mlp) == []


def test_a_component_is_published_whole_and_recorded(
    built: tuple[Path, ComponentRecord, list[str]], source: SmallCheckpoint
) -> None:
    bundle, record, said = built
    assert record.onnx == "onnx/fusion_mlp.onnx" and record.cpu_onnx == "onnx/fusion_mlp.cpu.onnx"
    assert set(record.files) == {record.onnx, record.cpu_onnx, "onnx/fusion_mlp.data"}
    assert {f"onnx/{path.name}" for path in (bundle / "onnx").iterdir()} == set(record.files)
    assert all(file.describes(bundle / name) for name, file in record.files.items())
    assert not (bundle / "build" / MLP).exists()
    assert record.fp32_islands == []
    assert set(record.parity) == {"onnx", "cpu_onnx"}
    bound = bound_of(MLP, Precision.FP16)
    for figures in record.parity.values():
        assert figures.bound == bound and 0 < figures.relative_l2 <= bound
    assert said == [
        "loading weights", "running PyTorch on the gate's inputs", "exporting to ONNX", "linting",
        "comparing fusion_mlp.onnx with PyTorch", "comparing fusion_mlp.cpu.onnx with PyTorch",
    ]  # fmt: skip
    for name, kind in ((record.onnx, "FLOAT16"), (record.cpu_onnx, "FLOAT")):
        graph = onnx.load(bundle / name, load_external_data=False).graph
        wanted = onnx.TensorProto.DataType.Value(kind)
        assert {each.type.tensor_type.elem_type for each in graph.output} == {wanted}


def test_a_finished_component_is_taken_while_its_inputs_and_files_are_the_same(
    built: tuple[Path, ComponentRecord, list[str]], source: SmallCheckpoint
) -> None:
    bundle, record, _ = built
    digest = input_digest(MLP, source, HALF)
    assert digest == record.input_digest
    assert built_component(bundle, MLP, digest) == record
    assert built_component(bundle, MLP, "of other weights") is None
    assert built_component(bundle, Component.VAE_DECODER, digest) is None
    path = bundle / record.cpu_onnx
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert built_component(bundle, MLP, digest) is None
    path.write_bytes(whole)
    assert built_component(bundle, MLP, digest) == record
    journal = bundle / "build" / "fusion_mlp.json"
    text = journal.read_bytes()
    journal.write_bytes(text[: len(text) // 2])
    assert built_component(bundle, MLP, digest) is None
    journal.write_bytes(text)


def test_every_input_of_a_component_makes_another_digest(
    source: SmallCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [input_digest(MLP, source, HALF), input_digest(Component.VAE_DECODER, source, HALF)]
    for changes in ({"precision": Precision.FP32}, {"opset": HALF.opset + 1}):
        digests.append(input_digest(MLP, source, dataclasses.replace(HALF, **changes)))
    real = sha256_of_file
    code = [Path(building.__file__).parent / f"{name}.py" for name in building._GRAPH_CODE]
    for changed in (*code, Path(inspect.getfile(gate))):
        assert changed.is_file()
        with monkeypatch.context() as patch:
            patch.setattr(
                building, "sha256_of_file",
                lambda path, changed=changed: real(path) + ("'" if path == changed else ""),
            )  # fmt: skip
            digests.append(input_digest(MLP, source, HALF))
    for tool in building.TOOLS:
        with monkeypatch.context() as patch:
            versions = building.tool_versions() | {tool: "0"}
            patch.setattr(building, "tool_versions", lambda versions=versions: versions)
            digests.append(input_digest(MLP, source, HALF))
    assert len(set(digests)) == len(digests)
    assert input_digest(MLP, source, HALF) == digests[0]


def test_what_is_published_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging, synced = tmp_path / "staging", list[str]()
    staging.mkdir()
    (staging / "b.onnx").write_bytes(b"second")
    (staging / "a.onnx").write_bytes(b"first")
    monkeypatch.setattr("export.component.os.fsync", lambda number: synced.append(
        Path(f"/proc/self/fd/{number}").readlink().name
    ))  # fmt: skip
    records = published(staging, tmp_path / "bundle" / "onnx")
    assert synced == ["a.onnx", "b.onnx"]
    assert list(records) == ["onnx/a.onnx", "onnx/b.onnx"]
    assert not staging.exists()
    assert (tmp_path / "bundle" / "onnx" / "b.onnx").read_bytes() == b"second"
    assert all(file.describes(tmp_path / "bundle" / name) for name, file in records.items())
