"""The TensorRT double in place of TensorRT, and bundles to build plans for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engines.tensorrt.libraries import TENSORRT, TENSORRT_RTX
from engines.tensorrt.machine import ThisGpu
from engines.tensorrt.target import PlanTarget
from tests.doubles.tensorrt_names import SETTINGS, Settings
from tests.paths import ROOT

VENDOR = ROOT / "tests" / "vendor"
SetUp = Callable[..., Settings]

GPU = ThisGpu(
    architecture=90,
    name="Double of a GPU",
    cuda="13.0",
    driver="unknown",
    free_nbytes=1 << 34,
    total_nbytes=1 << 34,
)
TARGET = PlanTarget(library=TENSORRT, version=Settings().version, architectures=(90,), gpu=GPU)
RTX_TARGET = PlanTarget(
    library=TENSORRT_RTX, version="1.7.1.116", architectures=(), host_free_nbytes=1 << 34
)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """Put the doubles where TensorRT and cuda-bindings are looked for, here and in processes.

    Calling it changes how they behave from now on.
    """
    vendor = ("tensorrt", "cuda", "cuda.bindings", "cuda.bindings.driver")
    before = {name: sys.modules.pop(name) for name in vendor if name in sys.modules}
    monkeypatch.syspath_prepend(str(VENDOR))
    paths = [str(ROOT), str(VENDOR), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def set_up(**changes: Any) -> Settings:
        settings = Settings(**changes)
        monkeypatch.setenv(SETTINGS, settings.to_environment())
        sys.modules.pop("tensorrt", None)
        sys.modules.pop("tests.vendor.tensorrt", None)
        return settings

    set_up()
    yield set_up
    for name in vendor:
        sys.modules.pop(name, None)
    sys.modules.update(before)
