"""Cubins that a driver cannot load: told before and after it is tried, and passed over."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import runtime.backends
from engines.bundle.folder import KERNELS_FOLDER
from engines.cuda import driver as cuda
from engines.cuda.driver import CudaError
from engines.cuda.launcher import opened_library
from engines.errors import DriverTooOldError, ProviderUnavailableError
from runtime import FaceDiffuser, Provider
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.kernels.recorder import Recorder, written_library
from tests.runtime.gpu.double import with_kernels
from tests.vendor import tensorrt as tensorrt_double


@dataclass
class Refusing(Recorder):
    """Answers a status to one call."""

    call: str = ""
    status: int = 0

    def cuLibraryLoadData(self, code: bytes, *rest: Any) -> tuple[Any, ...]:
        return self._answered("cuLibraryLoadData", super().cuLibraryLoadData(code, *rest))

    def cuLibraryGetKernel(self, library: Any, name: bytes) -> tuple[Any, ...]:
        return self._answered("cuLibraryGetKernel", super().cuLibraryGetKernel(library, name))

    def cuKernelGetFunction(self, kernel: Any) -> tuple[Any, ...]:
        return self._answered("cuKernelGetFunction", super().cuKernelGetFunction(kernel))

    def cuKernelGetParamInfo(self, kernel: Any, paramIndex: int) -> tuple[Any, ...]:
        assert self.version >= 12040, "an older driver has no such function"
        return super().cuKernelGetParamInfo(kernel, paramIndex)

    def _answered(self, call: str, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.status, None) if call == self.call else answer


def refusing(folder: Path, call: str = "", status: int = 0, **changes: Any) -> Refusing:
    sizes = written_library(folder, toolkit=changes.pop("toolkit", "12.9")).parameter_nbytes
    return Refusing(sizes, call=call, status=status, **changes)


@pytest.mark.parametrize("status", [200, 209, 218, 222])
@pytest.mark.parametrize("call", ["cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelGetFunction"])
def test_a_refusal_names_kernel_driver_found_and_driver_needed(
    call: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    monkeypatch.setattr(cuda, "_DRIVER_FILE", version)
    driver = refusing(tmp_path, call, status, version=12020)
    with (
        pytest.raises(ProviderUnavailableError) as raised,
        opened_library(tmp_path, 90, driver),
    ):
        pass
    told = str(raised.value)
    assert "does not load kernel fusion_blend for sm_90" in told
    assert f"({call} of kernel fusion_blend: the CUDA driver answered {status}" in told
    assert "is built by CUDA 12.9 for sm_90" in told
    assert "needs an NVIDIA driver for CUDA 12 (525 or newer)" in told
    assert "this one is 535.104.05, for CUDA 12.2" in told
    assert len(driver.unloaded) == (call != "cuLibraryLoadData")


def test_another_fault_of_the_driver_is_not_the_kernels(tmp_path: Path) -> None:
    driver = refusing(tmp_path, "cuLibraryLoadData", 700)
    with pytest.raises(CudaError, match="700"), opened_library(tmp_path, 90, driver):
        pass


@pytest.mark.parametrize(
    ("toolkit", "version", "loads"),
    [("12.9", 12000, True), ("12.9", 13000, True), ("13.4", 12090, False), ("13.4", 13000, True)],
)
def test_a_driver_loads_what_its_own_or_an_older_major_version_of_cuda_built(
    toolkit: str, version: int, *, loads: bool, tmp_path: Path
) -> None:
    driver = refusing(tmp_path, version=version, toolkit=toolkit)
    if loads:
        with opened_library(tmp_path, 90, driver) as library:
            assert library["pixels"].kernel.cubins[90].toolkit == toolkit
        return
    expected = r"CUDA 13\.4 for sm_90 .*CUDA 13 \(580 or newer\), .*for CUDA 12\.9; .*nvidia-smi"
    with (
        pytest.raises(DriverTooOldError, match=expected),
        opened_library(tmp_path, 90, driver),
    ):
        pass
    assert not driver.unloaded


class RefusingDriver(CudaDriver):
    """A whole machine whose driver is for CUDA 12 and meets code of CUDA 13."""

    def cuLibraryLoadData(self, code: bytes, *_: Any) -> tuple[Any, ...]:
        return 200, None


def test_the_next_provider_is_tried_unless_this_one_was_asked_for(
    golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_kernels(golden_bundle, tmp_path)
    whole = cuda_driver(bundle / KERNELS_FOLDER)
    driver = RefusingDriver(parameter_nbytes=whole.parameter_nbytes, kernels=whole.kernels)
    monkeypatch.setattr(runtime.backends, "driver", lambda _: driver)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double)
    with FaceDiffuser.open(bundle, threads=1) as opened:
        assert opened.provider == Provider.ONNXRUNTIME_CPU
        assert "does not load kernel fusion_blend" in opened.declined[Provider.TENSORRT]
        assert "does not load kernel fusion_blend" in opened.declined[Provider.ONNXRUNTIME_CUDA]
    with pytest.raises(ProviderUnavailableError, match="does not load kernel fusion_blend"):
        FaceDiffuser.open(bundle, provider="tensorrt")
    assert not +driver.open
