"""A stand-in for the CUDA driver: records launches with the parameters as a driver reads them."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.bundle.files import write_atomic
from engines.bundle.kernel_manifest import (
    FILE_NAME,
    Argument,
    Cubin,
    Kernel,
    KernelManifest,
    cubin_path,
)

SUCCESS, INVALID_VALUE = 0, 1


@dataclass
class Recorder:
    """Implements engines.cuda.driver.Driver.

    parameter_nbytes: what each module says of its own.
    """

    parameter_nbytes: Mapping[bytes, Sequence[int]]
    launches: list[tuple[Any, ...]] = field(default_factory=list)
    unloaded: list[Any] = field(default_factory=list)
    launch_status: int = SUCCESS
    version: int = 13010

    def cuDriverGetVersion(self) -> tuple[Any, ...]:
        return SUCCESS, self.version

    def cuLibraryLoadData(self, code: bytes, *_: Any) -> tuple[Any, ...]:
        return SUCCESS, code

    def cuLibraryGetKernel(self, library: Any, name: bytes) -> tuple[Any, ...]:
        return SUCCESS, name

    def cuLibraryUnload(self, library: Any) -> tuple[Any, ...]:
        self.unloaded.append(library)
        return (SUCCESS,)

    def cuKernelGetFunction(self, kernel: Any) -> tuple[Any, ...]:
        return SUCCESS, kernel

    def cuKernelGetParamInfo(self, kernel: Any, paramIndex: int) -> tuple[Any, ...]:
        sizes = self.parameter_nbytes[kernel]
        if paramIndex >= len(sizes):
            return INVALID_VALUE, None, None
        return SUCCESS, 8 * paramIndex, sizes[paramIndex]

    def cuLaunchKernel(self, f: Any, *arguments: Any) -> tuple[Any, ...]:
        *geometry, parameters, extra = arguments
        assert extra == 0
        pointers = (ctypes.c_void_p * len(self.parameter_nbytes[f])).from_address(parameters)
        values = [
            int.from_bytes(ctypes.string_at(pointer, nbytes), "little")
            for pointer, nbytes in zip(pointers, self.parameter_nbytes[f], strict=True)
        ]
        self.launches.append((f.decode(), tuple(geometry), values))
        return (self.launch_status,)


# The constants of the kernels that grids are computed from, and their arguments in launch order.
CONSTANTS = {
    "guided_step": {"BLOCK": 1024},
    "fusion_saliency_w64": {"CHANNELS": 4, "ROWS": 8, "COLUMNS": 64},
    "fusion_saliency_w128": {"CHANNELS": 4, "ROWS": 8, "COLUMNS": 128},
    "fusion_saliency_w256": {"CHANNELS": 4, "ROWS": 8, "COLUMNS": 256},
    "fusion_blend": {"CHANNELS": 4, "BLOCK": 256, "TILES": 128},
    "pixels": {"BLOCK": 4096},
}
_STEP = "latents* engine_latents* history*"
_CLOCK = "table* clock* timestep* faults*"
_GUIDED = "model start base target delta_use image_elements"
_ROLES = "tdm_start tdm_base tdm_target sdm_start sdm_base sdm_target"
_ARGUMENTS = {
    "guided_step": f"prediction* {_STEP} delta* {_CLOCK} {_GUIDED}",
    "fusion_saliency": "tdm_prediction* sdm_prediction* tdm_map* sdm_map* sums* table* clock* "
    "tdm_base tdm_target sdm_base sdm_target height width plane",
    "fusion_blend": f"tdm_prediction* sdm_prediction* {_STEP} tdm_map* sdm_map* sums* mask* "
    f"{_CLOCK} {_ROLES} plane tiles keep_saliency",
    "pixels": "decoded* picture* faults* plane",
}
_MULTIPLES = {"image_elements": 16, "plane": 16, "width": 8}


def entry_of(kernel: str) -> str:
    """fusion_saliency_w64 -> fusion_saliency."""
    return next(entry for entry in _ARGUMENTS if kernel.startswith(entry))


def arguments_of(kernel: str) -> tuple[Argument, ...]:
    """As kernels.json lists them, written down here a second time, from the kernels' signatures."""
    visible = [
        Argument(name=word[:-1], type="float16*", multiple_of=16)
        if word.endswith("*")
        else Argument(name=word, type="int32", multiple_of=_MULTIPLES.get(word, 1))
        for word in _ARGUMENTS[entry_of(kernel)].split()
    ]
    hidden = [Argument(name=n, type="scratch*") for n in ("global_scratch", "profile_scratch")]
    return (*visible, *hidden)


def written_library(
    folder: Path,
    architecture: int = 90,
    element_type: str = "float16",
    toolkit: str = "12.9",
) -> Recorder:
    """Write kernels.json with made-up cubins into folder; return the driver that knows them."""
    kernels = {}
    for name, constants in CONSTANTS.items():
        code = f"code of {name}".encode()
        write_atomic(cubin_path(folder, name, architecture), code)
        cubin = Cubin(sha256=hashlib.sha256(code).hexdigest(), shared_nbytes=1024, toolkit=toolkit)
        kernels[name] = Kernel(
            entry=entry_of(name),
            threads=128,
            constants=constants,
            arguments=arguments_of(name),
            cubins={architecture: cubin},
        )
    manifest = KernelManifest(
        element_type=element_type, digest="made up", compiler="none", kernels=kernels
    )
    write_atomic(folder / FILE_NAME, manifest.to_json().encode())
    return Recorder({k.entry.encode(): [a.nbytes for a in k.arguments] for k in kernels.values()})
