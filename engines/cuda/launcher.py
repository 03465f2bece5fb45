"""Loads the bundle's cubins and launches them, with nothing but the CUDA driver.

Whatever can be wrong is found when a library is opened or a launch is prepared; a launch itself is
one driver call on argument arrays that were filled once.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.kernel_manifest import (
    SCRATCH_TYPE,
    Argument,
    Kernel,
    KernelManifest,
    cubin_path,
)
from engines.cuda.driver import CudaError, KernelDriver, checked, released
from engines.cuda.loadable import REFUSALS, check_loadable, refused
from engines.errors import BundleCorruptError, ContractError

Grid = tuple[int, int]

_MAX_INT32 = 2**31 - 1
_MAX_GRID_Y = 65535
# cuKernelGetParamInfo appeared in CUDA 12.4; older drivers are trusted with the digest alone.
_TELLS_PARAMETERS = 12040
_INVALID_VALUE = 1  # CUDA_ERROR_INVALID_VALUE: there is no parameter of this index


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments in place: enqueued as often as wanted."""

    driver: KernelDriver
    name: str
    function: Any
    grid: Grid
    threads: int
    shared_nbytes: int
    # The driver reads arguments through this array of pointers; both must outlive the launches.
    values: tuple[Any, ...]
    pointers: ctypes.Array[ctypes.c_void_p]
    pointers_address: int

    def enqueue(self, stream: int) -> None:
        """Put the launch on a stream and return; raises CudaError."""
        checked(
            self.driver.cuLaunchKernel(
                self.function,
                *self.grid,
                1,
                self.threads,
                1,
                1,
                self.shared_nbytes,
                stream,
                self.pointers_address,
                0,
            ),
            "cuLaunchKernel",
            f"kernel {self.name}",
        )


@dataclass(frozen=True)
class LoadedKernel:
    """One kernel of an open library, found to be what kernels.json says."""

    name: str
    kernel: Kernel
    shared_nbytes: int
    driver: KernelDriver
    function: Any

    def prepare(self, grid: Grid, arguments: Mapping[str, int]) -> Launch:
        """Check and place the arguments, by name: device addresses and integers.

        Raises ContractError for a missing or unknown argument, a null or misaligned address, a
        number that breaks the promise the kernel was compiled with, or an impossible grid.
        """
        visible = [a for a in self.kernel.arguments if a.type != SCRATCH_TYPE]
        if arguments.keys() != {argument.name for argument in visible}:
            raise ContractError(
                f"kernel {self.name} takes {[a.name for a in visible]}, found {sorted(arguments)}"
            )
        if not (0 < grid[0] <= _MAX_INT32 and 0 < grid[1] <= _MAX_GRID_Y):
            raise ContractError(f"kernel {self.name} cannot be launched on a grid of {grid}")
        for argument in visible:
            self._check(argument, arguments[argument.name])
        values = tuple(
            ctypes.c_void_p(arguments.get(argument.name, 0))
            if argument.is_pointer
            else ctypes.c_int32(arguments[argument.name])
            for argument in self.kernel.arguments
        )
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        return Launch(
            driver=self.driver,
            name=self.name,
            function=self.function,
            grid=grid,
            threads=self.kernel.threads,
            shared_nbytes=self.shared_nbytes,
            values=values,
            pointers=pointers,
            pointers_address=ctypes.addressof(pointers),
        )

    def _check(self, argument: Argument, value: int) -> None:
        what = (
            f"kernel {self.name}: {argument.name} is {value:#x}"
            if argument.is_pointer
            else (f"kernel {self.name}: {argument.name} is {value}")
        )
        if argument.is_pointer and value <= 0:
            raise ContractError(f"{what}; pass the address of a device buffer")
        if value % argument.multiple_of:
            raise ContractError(f"{what}, expected a multiple of {argument.multiple_of}")
        if not argument.is_pointer and not 0 <= value <= _MAX_INT32:
            raise ContractError(
                f"{what}, which does not fit the kernel's int32; use a smaller size"
            )


@dataclass(frozen=True)
class KernelLibrary:
    """The kernels of a bundle, loaded for one GPU. bundle: its folder."""

    bundle: Path
    manifest: KernelManifest
    kernels: Mapping[str, LoadedKernel]

    def __getitem__(self, name: str) -> LoadedKernel:
        """A kernel by its name in kernels.json; raises ContractError."""
        if name not in self.kernels:
            raise ContractError(
                f"the bundle has no kernel {name}, only {sorted(self.kernels)}; "
                "build it again with",
                fix=commands.rebuilt(self.bundle),
            )
        return self.kernels[name]


@contextmanager
def opened_library(
    folder: Path, architecture: int, driver: KernelDriver
) -> Iterator[KernelLibrary]:
    """Load every kernel of folder for a GPU architecture, such as 90, into the current context.

    Raises ProviderUnavailableError where no cubin is for this architecture or the driver cannot
    load it, BundleError where a file is missing, altered or not what kernels.json says, CudaError.
    """
    bundle, manifest = folder.parent, KernelManifest.read(folder)
    cuda_version = int(checked(driver.cuDriverGetVersion(), "cuDriverGetVersion"))
    check_loadable(bundle, manifest, architecture, cuda_version)
    codes = {name: _whole(folder, name, manifest, architecture) for name in manifest.kernels}
    libraries: list[tuple[Any, str]] = []
    try:
        kernels = {}
        for name, code in codes.items():
            kernel = manifest.kernels[name]
            shared_nbytes = kernel.cubins[architecture].shared_nbytes
            try:
                answer = driver.cuLibraryLoadData(code, None, None, 0, None, None, 0)
                library = checked(answer, "cuLibraryLoadData", f"kernel {name}")
                libraries.append((library, name))
                # Code may be looked at only when its kernel is asked for.
                answer = driver.cuLibraryGetKernel(library, kernel.entry.encode())
                handle = checked(answer, "cuLibraryGetKernel", f"kernel {name}")
                answer = driver.cuKernelGetFunction(handle)
                function = checked(answer, "cuKernelGetFunction", f"kernel {name}")
            except CudaError as error:
                if error.status not in REFUSALS:
                    raise
                raise refused(bundle, manifest, name, architecture, cuda_version, error) from error
            if cuda_version >= _TELLS_PARAMETERS:
                _check_parameters(bundle, name, kernel, driver, handle)
            kernels[name] = LoadedKernel(
                name=name,
                kernel=kernel,
                shared_nbytes=shared_nbytes,
                driver=driver,
                function=function,
            )
        yield KernelLibrary(bundle, manifest, kernels)
    finally:
        for library, name in reversed(libraries):
            released(driver.cuLibraryUnload(library), "cuLibraryUnload", f"kernel {name}")


def _whole(folder: Path, name: str, manifest: KernelManifest, architecture: int) -> bytes:
    """A cubin's bytes, found equal to what kernels.json recorded."""
    path = cubin_path(folder, name, architecture)
    try:
        code = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleCorruptError(
            f"{path} is missing; build it again with", fix=commands.rebuilt(folder.parent)
        ) from error
    expected, found = (
        manifest.kernels[name].cubins[architecture].sha256,
        hashlib.sha256(code).hexdigest(),
    )
    if found != expected:
        raise BundleCorruptError(
            f"{path} does not match kernels.json (sha256 {found[:12]}, expected {expected[:12]}); "
            "build it again with",
            fix=commands.rebuilt(folder.parent),
        )
    return code


def _check_parameters(
    bundle: Path, name: str, kernel: Kernel, driver: KernelDriver, handle: Any
) -> None:
    """Hold the parameters of a loaded kernel against kernels.json."""
    expected = [argument.nbytes for argument in kernel.arguments]
    found = list(_parameter_sizes(driver, handle))
    if found != expected:
        raise BundleCorruptError(
            f"kernel {name} takes parameters of {found} bytes, kernels.json says {expected}; "
            "build it again with",
            fix=commands.rebuilt(bundle),
        )


def _parameter_sizes(driver: KernelDriver, kernel: Any) -> Iterator[int]:
    """The size of each parameter, in order, as the module itself has it."""
    index = 0
    while True:
        try:
            answer = driver.cuKernelGetParamInfo(kernel, index)
            _, nbytes = checked(answer, "cuKernelGetParamInfo", f"argument {index}")
        except CudaError as error:
            if error.status == _INVALID_VALUE:
                return
            raise
        yield int(nbytes)
        index += 1
