"""This machine's GPU and driver, as far as plans are tied to them, and its memory."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.cuda.driver import driver, driver_version, version_text
from engines.cuda.gpu import opened_gpu
from engines.errors import DriverTooOldError
from engines.tensorrt.libraries import TENSORRT, Library
from engines.tensorrt.library import installed_names, version_of, wheels_of

_CUDA_13 = 13000
_MEMORY_FILE = Path("/proc/meminfo")
_PROCESSOR_FILE = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class ThisGpu:
    """architecture: compute capability times ten. cuda: newest CUDA version the driver knows."""

    architecture: int
    name: str
    cuda: str
    driver: str
    free_nbytes: int
    total_nbytes: int


def this_gpu(library: Library, version: str) -> ThisGpu:
    """Look at the first GPU, and give its memory back at once.

    Raises ProviderUnavailableError where there is no GPU or driver, or where the driver does not
    fit this version of the library.
    """
    with opened_gpu(driver(library.extra)) as gpu:
        check_driver(library, version, gpu.cuda_version, installed_names())
        free_nbytes, total_nbytes = gpu.free_nbytes()
        return ThisGpu(
            architecture=gpu.architecture,
            name=gpu.name,
            cuda=version_text(gpu.cuda_version),
            driver=driver_version(),
            free_nbytes=free_nbytes,
            total_nbytes=total_nbytes,
        )


def check_driver(
    library: Library, version: str, cuda_version: int, installed: Sequence[str]
) -> None:
    """Raise DriverTooOldError if the driver is older than the library's CUDA.

    cuda_version: the driver's, such as 12040. installed: names of installed packages.
    """
    on_cuda_13 = any("_cu13" in name for name in wheels_of(library, installed))
    needs_13 = on_cuda_13 or version_of(version) >= library.cuda_13_from
    if needs_13 and cuda_version < _CUDA_13:
        older = library is TENSORRT
        raise DriverTooOldError(
            f"{library.title} {version} needs a driver for CUDA 13 ({library.driver} or newer), "
            f"this one is for CUDA {version_text(cuda_version)}; update the driver"
            + (", or install TensorRT for CUDA 12" if older else ""),
            fix='pip install "tensorrt-cu12>=10.9,<11"' if older else None,
        )


def host_in_words() -> str:
    """This machine's system and processor, without its name."""
    try:
        text = _PROCESSOR_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    processor = match.group(1).strip() if match else platform.machine()
    return f"{platform.system()} on {processor}"


def free_host_nbytes() -> int | None:
    """Memory of the host that a build may take; None where the system does not tell."""
    try:
        text = _MEMORY_FILE.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match.group(1)) << 10 if match else None
