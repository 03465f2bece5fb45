"""A stand-in for the CUDA driver that runs each launch in Triton's interpreter, on real memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engines.bundle.kernel_manifest import KernelManifest
from kernels.variants import VARIANTS, Variant
from tests.kernels.recorder import Recorder, written_library


@dataclass
class Interpreter(Recorder):
    """`variants`: what each made-up cubin stands for. `memory`: tensors by their address."""

    variants: dict[bytes, Variant] = field(default_factory=dict)
    memory: dict[int, torch.Tensor] = field(default_factory=dict)

    def cuLibraryGetKernel(self, library: bytes, name: bytes) -> tuple[Any, ...]:
        return 0, library

    def cuLaunchKernel(self, f: bytes, *arguments: Any) -> tuple[Any, ...]:
        answer = super().cuLaunchKernel(f, *arguments)
        _, geometry, values = self.launches[-1]
        variant = self.variants[f]
        visible = [self.memory.get(value, value) for value in values[:-2]]
        variant.kernel[geometry[:2]](*visible, **variant.constants)
        return answer

    def remember(self, owner: object) -> None:
        """Let launches find the tensors among an object's attributes."""
        for tensor in vars(owner).values():
            if isinstance(tensor, torch.Tensor):
                self.memory[tensor.data_ptr()] = tensor


def interpreter(folder: Path) -> Interpreter:
    """Write a made-up library into folder; return the driver that runs it."""
    written_library(folder)
    by_code = {f"code of {variant.name}".encode(): variant for variant in VARIANTS}
    kernels = KernelManifest.read(folder).kernels
    sizes = {
        code: [argument.nbytes for argument in kernels[variant.name].arguments]
        for code, variant in by_code.items()
    }
    return Interpreter(parameter_nbytes=sizes, variants=by_code)
