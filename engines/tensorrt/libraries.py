"""The libraries that build and run plans, as data: TensorRT, and TensorRT for RTX.

They share nearly all of their Python API (`engines.tensorrt.vendor`). A plan of TensorRT is for the
GPU that it was built on. A plan of TensorRT for RTX is for many cards: it is built without any, and
its kernels are compiled where it is first opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.bundle.plan_record import LibraryName, PlanSpec


@dataclass(frozen=True, kw_only=True)
class Library:
    """One library.

    wheels: how the names of its distributions begin. oldest, below: its versions that are used
    here; versions: the same in words. extra: what of this toolkit installs it. driver: the first
    that knows CUDA 13. cuda_13_from: the first version whose every wheel needs CUDA 13.
    architectures: what a build may name, compute capability times ten; empty where it is that of
    the GPU at hand. without_being_asked: those that a build is for that names none, with all that
    are later than the last. tells_progress: whether its builds say how far they are; otherwise they
    are silent for most of their time. has_single_precision: whether it builds attention in it.
    """

    name: LibraryName
    title: str
    module: str
    wheels: str
    oldest: tuple[int, int]
    below: tuple[int, int]
    versions: str
    requirement: str
    extra: str
    driver: str
    cuda_13_from: tuple[int, int]
    builds_without_gpu: bool
    has_timing_cache: bool
    has_optimization_levels: bool
    tells_progress: bool
    has_single_precision: bool
    architectures: tuple[int, ...] = ()
    without_being_asked: tuple[int, ...] = ()


TENSORRT = Library(
    name=LibraryName.TENSORRT,
    title="TensorRT",
    module="tensorrt",
    wheels="tensorrt",
    oldest=(10, 9),
    below=(12, 0),
    versions="10.9 to 11.x",
    requirement="tensorrt>=10.9,<12",
    extra="tensorrt",
    driver="R590",
    cuda_13_from=(11, 0),
    builds_without_gpu=False,
    has_timing_cache=True,
    has_optimization_levels=True,
    tells_progress=True,
    has_single_precision=True,
)
# A plan runs on exactly the release that built it, so the range is narrow.
TENSORRT_RTX = Library(
    name=LibraryName.TENSORRT_RTX,
    title="TensorRT for RTX",
    module="tensorrt_rtx",
    wheels="tensorrt_rtx",
    oldest=(1, 7),
    below=(1, 8),
    versions="1.7",
    requirement="tensorrt_rtx_cu13>=1.7,<1.8",
    extra="tensorrt-rtx",
    driver="R580",
    cuda_13_from=(9, 0),
    builds_without_gpu=True,
    has_timing_cache=False,
    has_optimization_levels=False,
    tells_progress=False,
    has_single_precision=False,
    architectures=(75, 80, 86, 89, 120, 121),
    without_being_asked=(80, 86, 89, 120, 121),
)
LIBRARIES: Mapping[LibraryName, Library] = {each.name: each for each in (TENSORRT, TENSORRT_RTX)}


def serves(library: Library, architectures: tuple[int, ...], gpu: int) -> bool:
    """Whether a plan that was built for these architectures is for a GPU of another."""
    if architectures:
        return gpu in architectures
    named = library.without_being_asked
    return gpu in named or (bool(named) and gpu > named[-1])


def is_for(spec: PlanSpec, gpu: int) -> bool:
    """Whether a plan is for a GPU of this architecture."""
    return serves(LIBRARIES[spec.library], spec.architectures, gpu)


def in_words(library: Library, architectures: tuple[int, ...]) -> str:
    """GPUs that a plan is for."""
    if architectures:
        return ", ".join(f"sm_{architecture}" for architecture in architectures)
    named = ", ".join(f"sm_{architecture}" for architecture in library.without_being_asked)
    return f"{named} and later"


def instead_on(architecture: int) -> str | None:
    """What to build for a GPU that TensorRT for RTX does not serve without being asked.

    None where it does.
    """
    if serves(TENSORRT_RTX, (), architecture):
        return None
    if architecture in TENSORRT_RTX.architectures:
        return (
            f"its plans are for sm_{architecture} only where --architecture {architecture} was "
            "asked for"
        )
    return (
        f"{TENSORRT_RTX.title} has no code for sm_{architecture}; {TENSORRT.title} has, so its "
        "plans are the ones to build"
    )


def words_for(library: Library, architecture: int) -> list[str]:
    """Further words of the command that builds a library's plans for a GPU.

    Where the library has none for it, those of the one that has.
    """
    if library is TENSORRT:
        return []
    if serves(library, (), architecture):
        return ["--library", library.name]
    if architecture in library.architectures:
        return ["--library", library.name, "--architecture", str(architecture)]
    return ["--library", TENSORRT.name]
