"""A bundle, the CUDA double and engines on it, put together as a backend."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import Component
from runtime import FaceDiffuser
from runtime.gpu.backend import GpuBackend
from runtime.gpu.programs import Concurrency
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.doubles.host_engine import HostEngine, HostProvider
from tests.kernels.recorder import written_library


def with_kernels(
    golden_bundle: Path, folder: Path, element_type: str = "float32", toolkit: str = "12.9"
) -> Path:
    """The golden bundle with a made-up library of kernels, for engines of a precision."""
    bundle = Path(shutil.copytree(golden_bundle, folder / "bundle"))
    written_library(bundle / KERNELS_FOLDER, element_type=element_type, toolkit=toolkit)
    return bundle


@dataclass
class OnCuda:
    """An open FaceDiffuser on the double."""

    face_diffuser: FaceDiffuser
    backend: GpuBackend
    driver: CudaDriver
    providers: list[HostProvider] = field(default_factory=list)

    def engine(self, component: Component) -> HostEngine:
        return self.providers[0].of(component)

    def count(self, call: str) -> int:
        return self.driver.calls.count(call)


@contextmanager
def on_cuda(
    path: Path,
    *,
    driver: CudaDriver | None = None,
    concurrency: Concurrency | None = Concurrency.CONCURRENT,
    capturable: bool = True,
    largest: int = 512,
    spoil: Callable[[HostEngine], None] = lambda _: None,
    tells: bool = True,
    low_memory: bool = False,
) -> Iterator[OnCuda]:
    """Open a bundle that with_kernels made; closing it must leave nothing open."""
    bundle = Bundle.open(path)
    used = driver or cuda_driver(path / KERNELS_FOLDER)
    providers: list[HostProvider] = []

    def opened(bundle: Bundle, *_: Any) -> HostProvider:
        providers.append(HostProvider(bundle, used, capturable, largest, spoil, tells))
        return providers[0]

    backend = GpuBackend(
        bundle, used, opened, concurrency=concurrency, trials=1, low_memory=low_memory
    )
    with FaceDiffuser(bundle, backend) as face_diffuser:
        yield OnCuda(face_diffuser, backend, used, providers)
    if driver is None:
        assert not +used.open
