"""A build's progress, and the way to stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines.errors import PlanBuildError
from engines.tensorrt.library import TensorRt


class PlanCancelledError(PlanBuildError):
    """The build was cancelled."""


@dataclass
class Cancellation:
    """Whether a build is to stop; set from another thread."""

    requested: bool = False


def progress_monitor(trt: TensorRt, tell: Any, cancellation: Cancellation) -> Any:
    """A TensorRT progress monitor; `tell` gets (kind, phase, parent or None, number).

    TensorRT calls it from several threads and stops soon after `cancellation` is requested. Keep
    it alive during the build. Its `cancelled` says whether it stopped a build.
    """
    base = trt.IProgressMonitor

    class _Monitor(base):  # type: ignore[misc, valid-type]  # the vendor's class is known at run time
        def __init__(self) -> None:
            base.__init__(self)
            self.cancelled = False

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:
            tell("start", phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell("step", phase_name, None, step)
            self.cancelled = self.cancelled or cancellation.requested
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            tell("finish", phase_name, None, 0)

    return _Monitor()
