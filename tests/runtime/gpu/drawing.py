"""What tests draw on a GPU or its double, and how they look at it; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from runtime import OutputType, Request
from runtime.gpu.run import GpuRun
from tests.paths import GOLDEN

REFERENCE = GOLDEN / "refs" / "man1.png"


class Quiet(Protocol):
    """A driver that can refuse all but launches."""

    quiet: bool


@contextmanager
def quiet_steps(driver: Quiet) -> Iterator[None]:
    """Let the driver refuse all but launches between the first step and the last."""
    begin, finish = GpuRun.__init__, GpuRun.finish

    def quiet_after(run: GpuRun, *arguments: Any) -> None:
        begin(run, *arguments)
        driver.quiet = True

    def loud_again(run: GpuRun) -> Any:
        driver.quiet = False
        return finish(run)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GpuRun, "__init__", quiet_after)
            patch.setattr(GpuRun, "finish", loud_again)
            yield
    finally:
        driver.quiet = False


def small(**changes: Any) -> Request:
    """Two steps of the scene, one of fusion, one of the subject."""
    fields: dict[str, Any] = {
        "prompt": "a man <|image|> reading a book", "references": [REFERENCE],
        "num_inference_steps": 4, "seed": 5, "height": 64, "width": 64,
        "output_type": OutputType.LATENT,
    }  # fmt: skip
    return Request(**(fields | changes))


def relative_l2(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
