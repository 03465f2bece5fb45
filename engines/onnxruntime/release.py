"""Which releases of ONNX Runtime compute on the GPU here, and what to install for the others."""

from __future__ import annotations

from types import ModuleType

from engines.cuda.driver import OLDEST_FOR_MAJOR, version_text
from engines.errors import DriverTooOldError, ProviderUnavailableError
from engines.onnxruntime.library import CUDA_PROVIDER, PACKAGES, onnxruntime_with

# The first release whose CUDA provider has ONNX's Attention; before it each layer of attention is
# computed on the CPU, with copies there and back. (Read from the wheels: 1.24.4's provider has no
# core/providers/cuda/llm/attention, 1.25.0's has.)
OLDEST = (1, 25)
# The last releases that are built for CUDA 12.
CUDA_12 = 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.25,<1.27"'


def onnxruntime_on_gpu(cuda_version: int | None = None) -> ModuleType:
    """The module, of a release that computes on this GPU.

    cuda_version: of the driver, such as 12040; None leaves it unchecked. Raises NotInstalledError,
    ProviderUnavailableError, DriverTooOldError.
    """
    module = onnxruntime_with(CUDA_PROVIDER)
    release = tuple(int(part) for part in str(module.__version__).split(".")[:2])
    if release < OLDEST:
        raise ProviderUnavailableError(
            f"onnxruntime-gpu {module.__version__} computes attention on the CPU; "
            f"{'.'.join(map(str, OLDEST))} is the first that has it on the GPU; type",
            fix=PACKAGES[CUDA_PROVIDER],
        )
    major = int(str(getattr(module, "cuda_version", "") or "0").split(".")[0])
    if cuda_version is not None and cuda_version // 1000 < major:
        raise DriverTooOldError(
            f"onnxruntime-gpu {module.__version__} is built for CUDA {major} and needs a driver "
            f"for it ({OLDEST_FOR_MAJOR.get(major, 'newer')} or newer), this one is for CUDA "
            f"{version_text(cuda_version)}; update the driver, or type",
            fix=CUDA_12,
        )
    return module
