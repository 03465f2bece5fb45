"""What plans are tied to: this machine's GPU, driver and TensorRT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from engines.cuda.driver import driver, version_text
from engines.cuda.gpu import opened_gpu
from engines.errors import DriverTooOldError
from engines.tensorrt.library import tensorrt, version_of

_CUDA_13 = 13000
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """architecture: compute capability times ten. cuda: newest CUDA version the driver knows."""

    architecture: int
    gpu: str
    cuda: str
    driver: str
    tensorrt: str
    free_nbytes: int
    total_nbytes: int


def this_machine() -> Machine:
    """Look at the first GPU, and give its memory back at once.

    Raises ProviderUnavailableError where there is no GPU, driver or TensorRT, or where they do not
    fit each other.
    """
    bindings = driver()
    trt = tensorrt()
    with opened_gpu(bindings) as gpu:
        check_driver(
            trt.__version__,
            gpu.cuda_version,
            [distribution.metadata["Name"] or "" for distribution in distributions()],
        )
        free_nbytes, total_nbytes = gpu.free_nbytes()
        return Machine(
            architecture=gpu.architecture,
            gpu=gpu.name,
            cuda=version_text(gpu.cuda_version),
            driver=driver_version(),
            tensorrt=trt.__version__,
            free_nbytes=free_nbytes,
            total_nbytes=total_nbytes,
        )


def check_driver(tensorrt_version: str, cuda_version: int, installed: Sequence[str]) -> None:
    """Raise DriverTooOldError if the driver is older than TensorRT's CUDA.

    cuda_version: the driver's, such as 12040. installed: names of installed packages.
    """
    on_cuda_13 = any(re.match(r"tensorrt[-_]cu13", name.lower()) for name in installed)
    needs_13 = on_cuda_13 or version_of(tensorrt_version) >= (11, 0)
    if needs_13 and cuda_version < _CUDA_13:
        raise DriverTooOldError(
            f"TensorRT {tensorrt_version} needs a driver for CUDA 13 (R590 or newer), this one is "
            f"for CUDA {version_text(cuda_version)}; update the driver, or install TensorRT for "
            "CUDA 12",
            fix='pip install "tensorrt-cu12>=10.9,<11"',
        )


def driver_version() -> str:
    """The NVIDIA driver's own version, such as 590.44.01; "unknown" where it is not told."""
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return match.group(1) if match else "unknown"
