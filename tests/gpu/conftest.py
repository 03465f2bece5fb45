"""The machine that the GPU tests run on: a real GPU, or its double, which shows that they can pass.

With FACE_DIFFUSER_REQUIRE_GPU=1 a test that is skipped has failed: no test is green because nothing
ran. FACE_DIFFUSER_GPU_BUNDLE names the bundle, by default `bundle` in the checkout.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import KernelManifest
from engines.cuda import driver as cuda
from engines.errors import FaceDiffuserError
from tests.paths import ROOT

REQUIRE, BUNDLE = "FACE_DIFFUSER_REQUIRE_GPU", "FACE_DIFFUSER_GPU_BUNDLE"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A driver and a bundle with kernels for its GPU.

    element: the kernels' type. side_px: of pictures that are drawn. many: requests in a row.
    """

    driver: Any
    bundle: Path
    side_px: int
    many: int
    real: bool

    @property
    def element(self) -> str:
        return KernelManifest.read(self.bundle / KERNELS_FOLDER).element_type


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if os.environ.get(REQUIRE) == "1" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and {REQUIRE}=1: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def gpu_driver() -> cuda.Driver:
    """The real one."""
    try:
        return cuda.driver("gpu-test")
    except FaceDiffuserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gpu_bundle(gpu_driver: cuda.Driver) -> Path:
    """The bundle that is measured on a real GPU: its kernels as they are, its own ONNX models."""
    path = Path(os.environ.get(BUNDLE) or ROOT / "bundle")
    try:
        Bundle.open(path)
    except FaceDiffuserError as error:
        pytest.skip(f"{error}; or name another in {BUNDLE}")
    return path


@pytest.fixture(scope="module", params=["double", pytest.param("gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if request.param == "gpu":
        return Machine(
            driver=request.getfixturevalue("gpu_driver"),
            bundle=request.getfixturevalue("gpu_bundle"),
            side_px=512,
            many=100,
            real=True,
        )
    # Imported here: the double interprets the kernels with Triton and PyTorch.
    from tests.doubles.cuda_driver import cuda_driver
    from tests.runtime.gpu.double import with_kernels

    golden = request.getfixturevalue("golden_bundle")
    bundle = with_kernels(golden, tmp_path_factory.mktemp("double"), "float16")
    driver = cuda_driver(bundle / KERNELS_FOLDER, element_type="float16")
    return Machine(driver=driver, bundle=bundle, side_px=64, many=3, real=False)
