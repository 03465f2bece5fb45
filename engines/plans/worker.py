"""The process that builds one plan, started by engines.plans.child.

The job comes as the first line of stdin; another line, or the end of stdin because the parent is
gone, cancels. Messages leave on what was stdout; whatever else prints goes to the build log.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from typing import Literal, TextIO

from engines.bundle.files import atomic_path, file_record
from engines.bundle.plan_record import BuiltPlan
from engines.bundle.records import document_of, from_json, to_json
from engines.cli.progress import PhaseEvent
from engines.cuda.driver import driver
from engines.cuda.gpu import opened_gpu
from engines.errors import DeviceMemoryError, FaceDiffuserError, PlanMemoryError
from engines.plans.job import Failure, PlanJob, WorkerMessage
from engines.plans.parity import plan_parity
from engines.plans.plan_from_onnx import (
    Cancellation,
    PlanCancelledError,
    plan_from_onnx,
    progress_monitor,
)
from engines.plans.precision import proven_precision
from engines.processes import ParentPipe
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.library import ErrorLog, logger, tensorrt
from engines.tensorrt.loader import engine_from_plan

DONE, FAILED = 0, 1
# How long a cancelled build may take to stop by itself.
_STOP_S = 5.0


class Parent:
    """Who started this process, and hears of the build; from any thread."""

    def __init__(self, prints: int) -> None:
        self._pipe = ParentPipe(prints)

    def tell(self, message: WorkerMessage) -> None:
        self._pipe.send(document_of(message))

    def phase(
        self, kind: Literal["start", "step", "finish"], phase: str, parent: str | None, number: int
    ) -> None:
        progress = PhaseEvent(kind=kind, phase=phase, parent=parent, number=number)
        self.tell(WorkerMessage(progress=progress))


def main() -> int:
    job = from_json(PlanJob, sys.stdin.readline())
    cancellation = Cancellation()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", buffering=1) as log:
        parent = Parent(log.fileno())
        os.dup2(log.fileno(), 2)
        threading.Thread(target=_await_cancel, args=(cancellation,), daemon=True).start()
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {to_json(job)}\n")
        try:
            parent.tell(WorkerMessage(built=_built(job, log, parent, cancellation)))
        except FaceDiffuserError as error:
            kind = PlanMemoryError if isinstance(error, DeviceMemoryError) else type(error)
            failure = Failure(kind=kind.__name__, reason=error.reason, fix=error.fix)
            parent.tell(WorkerMessage(failure=failure))
            log.write(f"{type(error).__name__}: {error}\n")
            return FAILED
    return DONE


def _built(job: PlanJob, log: TextIO, parent: Parent, cancellation: Cancellation) -> BuiltPlan:
    """Build, prove and compare one plan; what is refused is published nowhere."""
    started = time.monotonic()
    trt = tensorrt()
    build_log = ErrorLog()

    def sink(severity: str, message: str) -> None:
        log.write(f"{severity}: {message}\n")
        build_log.hear(severity, message)

    trt_logger = logger(trt, sink)
    monitor = progress_monitor(trt, parent.phase, cancellation)
    plan = plan_from_onnx(trt, trt_logger, build_log, job, monitor)
    # A build without a parent must not write where the next one may be writing already.
    if cancellation.requested:
        raise PlanCancelledError(f"{job.name}: the build was cancelled")
    with ExitStack() as stack:
        path = stack.enter_context(atomic_path(job.plan))
        path.write_bytes(plan)
        build_s = time.monotonic() - started
        gpu = stack.enter_context(opened_gpu(driver()))
        engine = engine_from_plan(trt, trt_logger, plan, job.name)
        parent.phase("start", "Inspecting layers", None, 1)
        layer_precision = proven_precision(trt, engine, job)
        parent.phase("finish", "Inspecting layers", None, 0)
        device_engine = TensorRtEngine(job.spec.component, trt, engine)
        stack.callback(device_engine.close)

        def progress(done: int, of: int) -> None:
            if not done:
                parent.phase("start", "Comparing with the CPU", None, of)
            parent.phase("step", "Comparing with the CPU", None, done)

        return BuiltPlan(
            file=file_record(path),
            optimization_level=job.optimization_level,
            build_s=round(build_s, 1),
            device_memory_nbytes=engine.device_memory_size_v2,
            layer_precision=layer_precision,
            parity=plan_parity(device_engine, gpu, job, progress),
        )


def _await_cancel(cancellation: Cancellation) -> None:
    """Wait for the parent's word or its end; a build that then does not stop is ended."""
    sys.stdin.readline()
    cancellation.requested = True
    time.sleep(_STOP_S)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
