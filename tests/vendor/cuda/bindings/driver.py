"""A CUDA driver of one GPU whose memory is the host's: what building and comparing plans needs."""

from __future__ import annotations

import ctypes
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any

from tests.doubles.tensorrt_names import settings

# Environment variable: the folder of kernels that drawing may launch.
KERNELS = "CUDA_DOUBLE_KERNELS"
_ALIGNMENT = 256
_blocks: dict[int, Any] = {}


class CUresult(IntEnum):
    """Statuses."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100


class CUdevice_attribute(IntEnum):
    """Attributes."""

    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUstream_flags(IntEnum):
    """Flags."""

    CU_STREAM_NON_BLOCKING = 1


Answer = tuple[Any, ...]
_DONE: Answer = (CUresult.CUDA_SUCCESS,)


def _nothing(*_: Any) -> Answer:
    return _DONE


def cuInit(flags: int, /) -> Answer:
    missing = settings().no_gpu
    return (CUresult.CUDA_ERROR_NO_DEVICE,) if missing else _DONE


def cuDriverGetVersion() -> Answer:
    return *_DONE, settings().driver_cuda


def cuDeviceGet(ordinal: int, /) -> Answer:
    return *_DONE, ordinal


def cuDeviceGetName(length: int, dev: Any, /) -> Answer:
    return *_DONE, b"Double of a GPU".ljust(length, b"\0")


def cuDeviceGetAttribute(attrib: Any, dev: Any, /) -> Answer:
    major, minor = divmod(settings().architecture, 10)
    wanted = CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    return *_DONE, major if attrib == wanted else minor


def cuDevicePrimaryCtxRetain(dev: Any, /) -> Answer:
    return *_DONE, "context"


def cuCtxGetCurrent() -> Answer:
    return *_DONE, None


def cuMemGetInfo() -> Answer:
    total = settings().memory_nbytes
    return *_DONE, total, total


def cuMemAlloc(bytesize: int, /) -> Answer:
    if bytesize > settings().memory_nbytes:
        return CUresult.CUDA_ERROR_OUT_OF_MEMORY, 0
    block = ctypes.create_string_buffer(bytesize + _ALIGNMENT)
    address = -(-ctypes.addressof(block) // _ALIGNMENT) * _ALIGNMENT
    _blocks[address] = block
    return *_DONE, address


def cuMemHostAlloc(bytesize: int, flags: int, /) -> Answer:
    return cuMemAlloc(bytesize)


def cuMemFree(dptr: int, /) -> Answer:
    del _blocks[dptr]
    return _DONE


def cuMemcpyHtoDAsync(dst: int, src: int, count: int, stream: int, /) -> Answer:
    ctypes.memmove(dst, src, count)
    return _DONE


def cuStreamCreate(flags: int, /) -> Answer:
    return *_DONE, 1


cuMemFreeHost = cuMemFree
cuMemcpyDtoHAsync = cuMemcpyHtoDAsync
cuMemcpyDtoDAsync = cuMemcpyHtoDAsync
cuStreamDestroy = cuStreamSynchronize = _nothing
cuDevicePrimaryCtxRelease = cuCtxSetCurrent = _nothing

if KERNELS in os.environ and "runtime" in sys.modules:
    # Drawing launches kernels and captures graphs, which the larger double does, and slowly.
    from engines.bundle.kernel_manifest import KernelManifest
    from tests.doubles import tensorrt_execution
    from tests.doubles.cuda_driver import cuda_driver

    _folder = Path(os.environ[KERNELS])
    _drawing = cuda_driver(_folder, element_type=KernelManifest.read(_folder).element_type)
    tensorrt_execution.enqueue = _drawing.put
    globals().update(
        {name: getattr(_drawing, name) for name in dir(_drawing) if name.startswith(("cu", "CU"))}
    )
