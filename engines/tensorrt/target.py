"""What plans are built for: a library, architectures, and the GPU at hand where one is needed."""

from __future__ import annotations

from dataclasses import dataclass

from engines import commands
from engines.bundle.plan_record import BuiltOn, LibraryName, PlanOptionError
from engines.errors import NotInstalledError, ProviderUnavailableError
from engines.tensorrt.libraries import (
    LIBRARIES,
    TENSORRT,
    TENSORRT_RTX,
    Library,
    in_words,
    instead_on,
)
from engines.tensorrt.library import load
from engines.tensorrt.machine import ThisGpu, free_host_nbytes, host_in_words, this_gpu


@dataclass(frozen=True, kw_only=True)
class PlanTarget:
    """A build's target.

    architectures: as in PlanSpec. gpu: None where the library builds without one.
    host_free_nbytes: None where the system does not tell.
    """

    library: Library
    version: str
    architectures: tuple[int, ...]
    gpu: ThisGpu | None = None
    host_free_nbytes: int | None = None

    def in_words(self) -> str:
        if self.gpu is not None:
            return self.gpu.name
        return f"{self.library.title} on {in_words(self.library, self.architectures)}"

    def built_on(self) -> BuiltOn:
        """Where the plans of a build come from."""
        gpu = self.gpu
        return BuiltOn(
            host=host_in_words(),
            gpu=None if gpu is None else gpu.name,
            driver=None if gpu is None else gpu.driver,
            cuda=None if gpu is None else gpu.cuda,
        )


def plan_target(
    library: LibraryName | None = None, architectures: tuple[int, ...] = ()
) -> PlanTarget:
    """The target that is asked for; without a library, the best that this machine can build for.

    That is TensorRT where its GPU is at hand, else TensorRT for RTX where it is installed. Raises
    ProviderUnavailableError saying what to install, PlanOptionError for architectures that a
    library cannot be asked for.
    """
    if library is None and architectures:
        library = LibraryName.TENSORRT_RTX
    if library is not None:
        return _target(LIBRARIES[library], architectures)
    try:
        return _target(TENSORRT, ())
    except ProviderUnavailableError as without_gpu:
        try:
            target = _target(TENSORRT_RTX, ())
        except NotInstalledError as not_installed:
            raise ProviderUnavailableError(
                f"{without_gpu}; or use {TENSORRT_RTX.title}, which "
                "builds without a GPU and is not installed; install it with",
                fix=commands.installed(TENSORRT_RTX.extra),
            ) from not_installed
        _check_served(without_gpu)
        return target


def _target(library: Library, architectures: tuple[int, ...]) -> PlanTarget:
    check_architectures(library, architectures)
    version = load(library).__version__
    if library.builds_without_gpu:
        return PlanTarget(
            library=library,
            version=version,
            architectures=architectures,
            host_free_nbytes=free_host_nbytes(),
        )
    gpu = this_gpu(library, version)
    return PlanTarget(library=library, version=version, architectures=(gpu.architecture,), gpu=gpu)


def check_architectures(library: Library, architectures: tuple[int, ...]) -> None:
    """Raise PlanOptionError for architectures that a library cannot be asked for."""
    if not architectures or set(architectures) <= set(library.architectures):
        return
    asked = ", ".join(map(str, architectures))
    if not library.architectures:
        raise PlanOptionError(
            f"{library.title} builds for the GPU that is at hand, so there is no architecture to "
            f"ask for, got {asked}; {TENSORRT_RTX.title} builds for others"
        )
    there = ", ".join(map(str, library.architectures))
    hopper = "; H100, H200 and B200 are TensorRT's" if set(architectures) & {90, 100, 103} else ""
    raise PlanOptionError(f"{library.title} builds for architectures {there}, got {asked}{hopper}")


def _check_served(without_tensorrt: ProviderUnavailableError) -> None:
    """Nobody who has an H100 is given plans for RTX cards without asking for them."""
    try:
        gpu = this_gpu(TENSORRT_RTX, "")
    except ProviderUnavailableError:
        return
    if (reason := instead_on(gpu.architecture)) is not None:
        raise ProviderUnavailableError(
            f"{without_tensorrt.reason} ({gpu.name}: {reason})", fix=without_tensorrt.fix
        ) from without_tensorrt
