"""Compiled models: the next opening takes them, if they are whole and meant for it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.engine import HostPrecision
from engines.errors import BundleCorruptError
from engines.openvino import cpu
from engines.openvino.compiled import FOLDER, CompiledFile
from engines.openvino.cpu import has_bfloat16, open_on_openvino
from engines.system.cache import user_cache
from tests.runtime.host.test_openvino import prediction


def set_free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """Of a disk of a terabyte."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=nbytes))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, on a disk with room whatever this machine's has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    set_free(monkeypatch, 10 << 30)
    return user_cache() / FOLDER


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Component]:
    """What OpenVINO really compiled."""
    components: list[Component] = []
    compile_them = cpu._compiled

    def counted(*arguments: object) -> list[object]:
        components.append(arguments[1])  # type: ignore[arg-type]
        return compile_them(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu, "_compiled", counted)
    return components


def predicted(bundle: Path, precision: HostPrecision = HostPrecision.FLOAT32) -> np.ndarray:
    engine = open_on_openvino(Bundle.open(bundle), Component.TDM_UNET, 1, precision)
    found = prediction(engine, 501.0).copy()
    engine.close()
    return found


@pytest.mark.parametrize("precision", HostPrecision)
def test_the_second_opening_compiles_nothing_and_computes_the_same(
    precision: HostPrecision, golden_bundle: Path, cache: Path, compiled: list[Component]
) -> None:
    if precision is HostPrecision.BFLOAT16 and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    first = predicted(golden_bundle, precision)
    assert compiled == [Component.TDM_UNET]
    assert np.array_equal(predicted(golden_bundle, precision), first)
    assert compiled == [Component.TDM_UNET]
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", [0, 40, 4096, -1])
def test_a_damaged_file_is_compiled_again(
    place: int, golden_bundle: Path, cache: Path, compiled: list[Component]
) -> None:
    first = predicted(golden_bundle)
    (file,) = cache.iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 1
    file.write_bytes(damaged)
    assert np.array_equal(predicted(golden_bundle), first)
    assert len(compiled) == 2
    predicted(golden_bundle)
    assert len(compiled) == 2


@pytest.mark.parametrize("content", [b"", b"short", bytes(5000)])
def test_what_is_no_file_of_models_is_compiled_again(
    content: bytes, golden_bundle: Path, cache: Path, compiled: list[Component]
) -> None:
    first = predicted(golden_bundle)
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert np.array_equal(predicted(golden_bundle), first)
    assert len(compiled) == 2


def test_another_graph_precision_number_of_threads_or_version_is_compiled_for_itself(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ("2026.4", Component.TDM_UNET, "digest", 2, HostPrecision.FLOAT32)
    others = [
        ("2026.5", *known[1:]),
        (*known[:2], "another", *known[3:]),
        (*known[:3], 1, known[4]),
        (*known[:4], HostPrecision.BFLOAT16),
        (known[0], Component.SDM_UNET, *known[2:]),
    ]
    files = [CompiledFile.of(each) for each in (known, *others)]
    monkeypatch.setattr("engines.openvino.compiled.processor_name", lambda: "another")
    files.append(CompiledFile.of(known))
    assert len(set(files)) == len(files)
    assert all(each is not None and each.path.parent == cache for each in files)


def test_models_that_a_bundle_brings_are_not_looked_at(
    golden_bundle: Path, tmp_path: Path, cache: Path, compiled: list[Component]
) -> None:
    predicted(golden_bundle)
    copy = shutil.copytree(golden_bundle, tmp_path / "bundle")
    shutil.move(cache, copy / FOLDER)
    predicted(copy)
    assert len(compiled) == 2


def test_models_of_another_openvino_are_compiled_again(
    golden_bundle: Path, cache: Path, compiled: list[Component]
) -> None:
    first = predicted(golden_bundle)
    (file,) = cache.iterdir()
    CompiledFile(file).write([b"what another release wrote"])
    assert np.array_equal(predicted(golden_bundle), first)
    assert len(compiled) == 2


def test_what_was_compiled_of_altered_weights_is_never_taken_for_the_whole_ones(
    golden_bundle: Path, bundle_copy: Path, cache: Path
) -> None:
    weights = bundle_copy / "onnx" / "tdm_unet.data"
    whole = weights.read_bytes()
    weights.write_bytes(bytes(len(whole)))
    with pytest.raises(BundleCorruptError, match="was altered"):
        predicted(bundle_copy)
    assert not cache.exists() or not list(cache.iterdir())
    weights.write_bytes(whole)
    found = predicted(bundle_copy)
    assert np.array_equal(found, predicted(golden_bundle))
    assert np.abs(found).max() > 0


def test_nothing_is_kept_for_who_wants_none(
    golden_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_DIFFUSER_OPENVINO_CACHE", "never")
    predicted(golden_bundle)
    assert not cache.exists()


def test_no_piece_of_a_file_can_be_damaged_or_out_of_its_place(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.openvino.compiled._PIECE_NBYTES", 4096)
    file = CompiledFile(cache / "some.models")
    file.write([bytes([1]) * 8000, bytes([2]) * 100])
    whole = file.path.read_bytes()
    found = file.read()
    assert found is not None
    assert [each.tobytes() for each in found] == [bytes([1]) * 8000, bytes([2]) * 100]
    pieces = [whole[start : start + 4096] for start in range(32, len(whole), 4096)]
    assert len(pieces) > 3
    for index in range(len(pieces)):
        damaged = [*pieces]
        damaged[index] = bytes([damaged[index][0] ^ 1]) + damaged[index][1:]
        file.path.write_bytes(whole[:32] + b"".join(damaged))
        assert file.read() is None
    file.path.write_bytes(whole[:32] + b"".join([pieces[0], *pieces[:0:-1]]))
    assert file.read() is None
    file.path.write_bytes(whole)
    assert file.read() is not None


def test_models_are_kept_that_take_a_quarter_of_what_is_free(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CompiledFile(cache / "some.models")
    set_free(monkeypatch, 399)
    file.write([bytes(60), bytes(40)])
    assert file.read() is None
    set_free(monkeypatch, 400)
    file.write([bytes(60), bytes(40)])
    assert file.read() is not None


def test_a_full_disk_and_a_cache_that_cannot_be_written_are_done_without(
    golden_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free(monkeypatch, 1 << 10)
    predicted(golden_bundle)
    assert not list(cache.iterdir())
    set_free(monkeypatch, 10 << 30)
    shutil.rmtree(cache)
    cache.write_text("in the way")
    predicted(golden_bundle)


def test_what_nobody_opened_for_long_is_removed(cache: Path) -> None:
    old, used, new = (CompiledFile(cache / f"{name}.models") for name in ("old", "used", "new"))
    old.write([b"old"])
    used.write([b"used"])
    long_ago = time.time() - 100 * 24 * 3600
    for each in (old, used):
        os.utime(each.path, (long_ago, long_ago))
    found = used.read()
    assert found is not None
    assert found[0].tobytes() == b"used"
    new.write([b"new", b"and its waves"])
    assert not old.path.exists()
    assert used.path.exists()
    both = new.read()
    assert both is not None
    assert [each.tobytes() for each in both] == [b"new", b"and its waves"]
    assert all(each.ctypes.data % 4096 == 0 for each in both)
