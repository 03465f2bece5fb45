"""Compile the kernels ahead of time into cubins and kernels.json; needs no GPU.

The result depends on the kernels' sources, Triton's version and the precision alone: it is the same
byte for byte wherever and whenever it is built, so what is already there and whole is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from engines import commands
from engines.bundle.files import sha256_of_file, write_atomic
from engines.bundle.kernel_manifest import (
    FILE_NAME,
    Cubin,
    Kernel,
    KernelManifest,
    cubin_path,
)
from engines.bundle.records import read
from engines.errors import BundleError, FaceDiffuserError
from engines.system.processes import run_module

# Compute capability times ten, from Turing to Blackwell.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 103, 110, 120, 121)

ELEMENT_TYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}

# Architectures that no CUDA 12 assembler knows: sm_110 (Thor) came with CUDA 13.
NEED_CUDA_13 = frozenset({110})

_SOURCES = (
    Path(__file__).parents[2] / "kernels",
    Path(__file__).parent / "compiler.py",
)


class KernelBuildError(FaceDiffuserError):
    """The compiler refused a kernel, or one came out that must not be shipped."""


def build_cubins(
    folder: Path,
    *,
    precision: str,
    architectures: Iterable[int] = ARCHITECTURES,
    progress: Callable[[str], None] = lambda _: None,
) -> KernelManifest:
    """Bring folder to hold every kernel's cubin for these architectures, and kernels.json.

    precision: of the engines, "fp16", "bf16" or "fp32". Only what is missing, damaged or out of
    date is compiled; kernels.json is rewritten after each architecture, so a killed build resumes
    there. progress is called with one line per architecture. Raises KernelBuildError.
    """
    element_type, wanted = ELEMENT_TYPES[precision], tuple(sorted(set(architectures)))
    folder.mkdir(parents=True, exist_ok=True)
    kept = _kept(folder, cubins_digest(precision=precision), wanted)
    manifest = KernelManifest(
        element_type=element_type,
        digest=cubins_digest(precision=precision),
        compiler=_compiler(),
        kernels=kept,
    )
    for architecture in manifest.architectures:
        progress(f"kernels for sm_{architecture}: up to date")
    missing = [each for each in wanted if each not in manifest.architectures]
    for number, (architecture, built) in enumerate(
        _compiled_in_parallel(folder, element_type, missing), start=1
    ):
        manifest = replace(manifest, kernels=_merged(manifest, built))
        write_atomic(folder / FILE_NAME, manifest.to_json().encode())
        progress(f"kernels for sm_{architecture} ({number} of {len(missing)})")
    write_atomic(folder / FILE_NAME, manifest.to_json().encode())
    _remove_unlisted(folder, manifest)
    return manifest


def cubins_digest(*, precision: str) -> str:
    """SHA-256 of everything a cubin depends on: sources, Triton's version, precision."""
    files = [
        p for source in _SOURCES for p in ([source] if source.is_file() else source.glob("*.py"))
    ]
    parts = [_compiler(), precision, f"CUDA 13 for {sorted(NEED_CUDA_13)} alone"]
    parts += [f"{path.name} {sha256_of_file(path)}" for path in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def older_assembler() -> Path | None:
    """The older of the two assemblers that come with Triton, of CUDA 12; None where it has one."""
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
    return path if path.is_file() else None


def _compiler() -> str:
    try:
        return f"triton {version('triton')}"
    except PackageNotFoundError as error:
        raise KernelBuildError(
            "compiling the kernels needs triton, which is not installed; on Linux, install it with",
            fix=commands.installed("export"),
        ) from error


def _kept(folder: Path, digest: str, architectures: tuple[int, ...]) -> dict[str, Kernel]:
    """Kernels of an earlier build that are of this digest, less the cubins that are not whole."""
    try:
        earlier = KernelManifest.read(folder)
    except BundleError:
        return {}
    if earlier.digest != digest:
        return {}

    def whole(kernel: str, architecture: int, cubin: Cubin) -> bool:
        path = cubin_path(folder, kernel, architecture)
        return path.is_file() and sha256_of_file(path) == cubin.sha256

    return {
        name: replace(
            kernel,
            cubins={
                architecture: cubin
                for architecture, cubin in kernel.cubins.items()
                if architecture in architectures and whole(name, architecture, cubin)
            },
        )
        for name, kernel in earlier.kernels.items()
    }


def _compiled_in_parallel(
    folder: Path, element_type: str, architectures: Iterable[int]
) -> Iterator[tuple[int, KernelManifest]]:
    """Compile on all cores; yields each architecture as it is done.

    Each compiler is a process of its own, so threads that wait for them are enough. After a failure
    nothing more is started, what is done is still yielded, and then the failure is raised.
    """
    failures = []
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        futures = {
            pool.submit(_compiled, folder, element_type, each): each for each in architectures
        }
        try:
            for done in as_completed(futures):
                if done.cancelled():
                    continue
                if error := done.exception():
                    failures.append(error)
                    pool.shutdown(wait=False, cancel_futures=True)
                else:
                    yield futures[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if failures:
        raise failures[0]


def _compiled(folder: Path, element_type: str, architecture: int) -> KernelManifest:
    """Compile for one architecture in a process of its own, away from any cache."""
    triton = {name: None for name in os.environ if "TRITON" in name}
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as staging:
        # Without line information cubins are smaller and hold no path of this machine.
        environment = triton | {"TRITON_CACHE_DIR": cache, "TRITON_DISABLE_LINE_INFO": "1"}
        older = None if architecture in NEED_CUDA_13 else older_assembler()
        if older is not None:
            # Triton takes its CUDA 13 assembler from sm_90 on, whose code no driver before 580
            # loads. What was taken is read from the cubin and recorded.
            environment["TRITON_PTXAS_BLACKWELL_PATH"] = str(older)
        # One that outlives a killed build writes into no bundle: this process moves its files.
        words = (staging, element_type, architecture)
        ended = run_module(f"{__package__}.compiler", *words, environment=environment)
        if ended.code:
            reason = ended.last_words or f"exit status {ended.code}"
            raise KernelBuildError(f"the kernels do not compile for sm_{architecture}: {reason}")
        for cubin in sorted(Path(staging).glob("*.cubin")):
            write_atomic(folder / cubin.name, cubin.read_bytes())
    kernels = json.loads(ended.printed)
    content = {"element_type": element_type, "digest": "", "compiler": "", "kernels": kernels}
    return read(KernelManifest, content)


def _merged(manifest: KernelManifest, built: KernelManifest) -> dict[str, Kernel]:
    """Add one architecture's cubins to those already there."""
    merged = {}
    for name, kernel in built.kernels.items():
        earlier = manifest.kernels.get(name)
        cubins = {**(earlier.cubins if earlier else {}), **kernel.cubins}
        merged[name] = replace(kernel, cubins=dict(sorted(cubins.items())))
    return merged


def _remove_unlisted(folder: Path, manifest: KernelManifest) -> None:
    """Delete cubins that an earlier build left and this manifest does not name."""
    named = {
        cubin_path(folder, name, architecture)
        for name, kernel in manifest.kernels.items()
        for architecture in kernel.cubins
    }
    for path in folder.glob("*.cubin"):
        if path not in named:
            path.unlink()
