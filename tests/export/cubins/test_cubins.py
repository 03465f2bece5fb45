"""The ahead-of-time build, on a machine without a GPU: what a launcher will rely on."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.measures.cubins import facts_of, output_of, traffic
from engines.bundle.files import write_atomic
from engines.bundle.kernel_manifest import FILE_NAME, KernelManifest, cubin_path
from engines.cuda.launcher import opened_library
from engines.errors import FaceDiffuserError
from export.cubins import build as cubins
from export.cubins import compiler as cubin_compiler
from tests.kernels.recorder import CONSTANTS, Recorder, arguments_of, entry_of, written_library

# One stands for all, since each takes many seconds; a slow test builds others.
ARCHITECTURES = (90,)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    cubins.build_cubins(folder, precision="fp16", architectures=ARCHITECTURES)
    return folder


@pytest.fixture(scope="module")
def manifest(built: Path) -> KernelManifest:
    return KernelManifest.read(built)


def every(manifest: KernelManifest) -> Iterator[tuple[str, int]]:
    for name in manifest.kernels:
        for architecture in manifest.architectures:
            yield name, architecture


def test_every_kernel_is_there_for_every_architecture(
    built: Path, manifest: KernelManifest
) -> None:
    assert manifest.architectures == ARCHITECTURES
    assert manifest.element_type == "float16"
    assert {name: dict(k.constants) for name, k in manifest.kernels.items()} == CONSTANTS
    files = {path.name for path in built.iterdir()}
    assert files == {FILE_NAME} | {cubin_path(built, *key).name for key in every(manifest)}


def test_arguments_are_the_signatures(manifest: KernelManifest) -> None:
    for name, kernel in manifest.kernels.items():
        expected = arguments_of(name)
        assert kernel.entry == entry_of(name)
        assert [a.name for a in kernel.arguments] == [a.name for a in expected]
        assert [a.is_pointer for a in kernel.arguments] == [a.is_pointer for a in expected]
        assert [a.multiple_of for a in kernel.arguments] == [a.multiple_of for a in expected]


def test_cubins_take_the_parameters_their_json_says(built: Path, manifest: KernelManifest) -> None:
    for name, architecture in every(manifest):
        dump = output_of("cuobjdump", "-elf", str(cubin_path(built, name, architecture)))
        found = re.findall(r"Ordinal : (0x\w+)\s+Offset\s+: 0x\w+\s+Size\s+: (0x\w+)", dump)
        sizes = {int(ordinal, 16): int(nbytes, 16) for ordinal, nbytes in found}
        expected = [argument.nbytes for argument in manifest.kernels[name].arguments]
        assert [sizes[index] for index in sorted(sizes)] == expected
        threads = re.search(r"EIATTR_REQNTID\s+Format:\s+EIFMT_SVAL\s+Value:\s+(0x\w+)", dump)
        assert threads is not None
        assert int(threads[1], 16) == manifest.kernels[name].threads


def test_no_kernel_spills_and_vectors_are_wide(built: Path, manifest: KernelManifest) -> None:
    for name, architecture in every(manifest):
        cubin_compiler.refuse_local_memory(cubin_path(built, name, architecture))
    for name in manifest.kernels:
        facts = facts_of(cubin_path(built, name, 90))
        assert facts.spilled_nbytes == 0
        # All but the scalars: the clock, the table's row, the tiles' sums. Pixels are gathered.
        if manifest.kernels[name].entry != "pixels":
            assert facts.loads_of_16_nbytes >= facts.loads / 2


def test_no_path_of_the_build_is_inside(built: Path, manifest: KernelManifest) -> None:
    for name, architecture in every(manifest):
        code = cubin_path(built, name, architecture).read_bytes()
        assert str(built).encode() not in code
        assert str(Path(cubins.__file__).parents[1]).encode() not in code
        assert b".py" not in code


@pytest.mark.slow
def test_a_build_elsewhere_is_the_same_byte_for_byte(built: Path, tmp_path: Path) -> None:
    cubins.build_cubins(tmp_path / "other", precision="fp16", architectures=(90,))
    for path in (tmp_path / "other").glob("*.cubin"):
        assert path.read_bytes() == (built / path.name).read_bytes()


def test_the_launcher_opens_what_was_built(built: Path, manifest: KernelManifest) -> None:
    sizes = {k.entry.encode(): [a.nbytes for a in k.arguments] for k in manifest.kernels.values()}
    with opened_library(built, 90, Recorder(sizes)) as library:
        assert set(library.kernels) == set(CONSTANTS)


def test_drivers_from_525_on_load_what_is_built_for_an_h100(
    built: Path, manifest: KernelManifest
) -> None:
    for name, architecture in every(manifest):
        assert manifest.kernels[name].cubins[architecture].toolkit.startswith("12.")
        # ELF header: OS/ABI 0x33 and ABI version 7 are CUDA 12's, 0x41 and 8 are CUDA 13's.
        header = cubin_path(built, name, architecture).read_bytes()[:9]
        assert header[7:9] == b"\x33\x07"


@pytest.mark.slow
def test_only_what_no_cuda_12_assembler_knows_needs_a_newer_driver(tmp_path: Path) -> None:
    manifest = cubins.build_cubins(tmp_path, precision="fp16")
    majors = {
        architecture: {kernel.cubins[architecture].cuda_major for kernel in each}
        for each in [tuple(manifest.kernels.values())]
        for architecture in manifest.architectures
    }
    expected = {a: {13 if a in cubins.NEED_CUDA_13 else 12} for a in cubins.ARCHITECTURES}
    assert majors == expected


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_oldest_and_the_newest_architecture_build(tmp_path: Path, precision: str) -> None:
    ends = (cubins.ARCHITECTURES[0], cubins.ARCHITECTURES[-1])
    manifest = cubins.build_cubins(tmp_path, precision=precision, architectures=ends)
    assert manifest.architectures == ends


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make compiling instant, one at a time; the list says for which architectures it happened."""
    architectures: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})

    def fake(folder: Path, element_type: str, architecture: int) -> KernelManifest:
        architectures.append(architecture)
        written_library(folder, architecture)
        return KernelManifest.read(folder)

    monkeypatch.setattr(cubins, "_compiled", fake)
    return architectures


def test_a_second_build_compiles_nothing(tmp_path: Path, compiled: list[int]) -> None:
    first = cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90))
    lines: list[str] = []
    again = cubins.build_cubins(
        tmp_path, precision="fp16", architectures=(80, 90), progress=lines.append
    )
    assert compiled == [80, 90]
    assert asdict(again) == asdict(first)
    assert [line.endswith("up to date") for line in lines] == [True, True]


def test_a_damaged_or_missing_cubin_is_built_again(tmp_path: Path, compiled: list[int]) -> None:
    cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90))
    cubin_path(tmp_path, "pixels", 80).write_bytes(b"torn")
    cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90))
    assert compiled == [80, 90, 80]


def test_a_build_that_fails_half_way_resumes(
    tmp_path: Path, compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = cubins._compiled

    def failing(folder: Path, element_type: str, architecture: int) -> KernelManifest:
        if architecture == 90:
            raise cubins.KernelBuildError("killed")
        return fake(folder, element_type, architecture)

    monkeypatch.setattr(cubins, "_compiled", failing)
    with pytest.raises(cubins.KernelBuildError, match="killed"):
        cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90, 100))
    monkeypatch.setattr(cubins, "_compiled", fake)
    cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90, 100))
    assert compiled.count(80) == compiled.count(90) == 1


def test_an_interrupted_build_keeps_what_was_done(tmp_path: Path, compiled: list[int]) -> None:
    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cubins.build_cubins(tmp_path, precision="fp16", architectures=(80,), progress=interrupted)
    cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90))
    assert compiled == [80, 90]


def test_another_precision_is_another_build(tmp_path: Path, compiled: list[int]) -> None:
    cubins.build_cubins(tmp_path, precision="fp16", architectures=(80,))
    cubins.build_cubins(tmp_path, precision="fp32", architectures=(80,))
    assert compiled == [80, 80]
    assert cubins.cubins_digest(precision="fp16") != cubins.cubins_digest(precision="fp32")


def test_cubins_of_dropped_architectures_are_removed(tmp_path: Path, compiled: list[int]) -> None:
    cubins.build_cubins(tmp_path, precision="fp16", architectures=(80, 90))
    manifest = cubins.build_cubins(tmp_path, precision="fp16", architectures=(90,))
    assert manifest.architectures == (90,)
    assert not list(tmp_path.glob("*.sm_80.cubin"))


def test_what_the_compiler_cannot_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FaceDiffuserError, match="do not compile for sm_10"):
        cubins.build_cubins(tmp_path, precision="fp16", architectures=(10,))


@pytest.mark.parametrize("usage", ["STACK:24 SHARED:0 LOCAL:0 ", "STACK:0 SHARED:0 LOCAL:8 "])
def test_a_kernel_that_spills_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usage: str
) -> None:
    class Finished:
        stdout = f"REG:64 {usage}"

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Finished)
    write_atomic(tmp_path / "a.cubin", b"code")
    with pytest.raises(cubin_compiler.CompilerError, match="spills"):
        cubin_compiler.refuse_local_memory(tmp_path / "a.cubin")


def test_traffic_of_a_stage_in_one_launch_is_the_minimum() -> None:
    moved = traffic()
    for kernel in ("guided_step", "pixels"):
        assert moved[kernel].distinct == moved[kernel].minimum
