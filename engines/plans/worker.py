"""The process that builds one plan: `python -m engines.plans.worker`, started by plan_process.

A build gives its memory back only when its process ends. The job comes as the first line of stdin;
a second line, or the end of stdin because the parent is gone, cancels. Events leave as JSON lines
on what was stdout; whatever else prints goes to the build log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, TextIO

from engines.bundle.files import atomic_path, sha256_of_file
from engines.cuda.driver import driver
from engines.cuda.gpu import opened_gpu
from engines.errors import DeviceMemoryError, FaceDiffuserError
from engines.plans.job import PlanJob
from engines.plans.parity import plan_parity
from engines.plans.plan_from_onnx import (
    BuildLog,
    Cancellation,
    PlanCancelledError,
    PlanMemoryError,
    plan_from_onnx,
    progress_monitor,
)
from engines.plans.precision import proven_precision
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.library import TensorRt, logger, tensorrt
from engines.tensorrt.loader import engine_from_plan

DONE, FAILED = 0, 1


class Events:
    """Writes events as JSON lines; safe from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, event: str, **facts: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps({"event": event} | facts) + "\n")
            self._stream.flush()

    def phase(self, kind: str, phase: str, parent: str | None, number: int) -> None:
        self.tell(kind, phase=phase, parent=parent, number=number)


def main() -> int:
    job = PlanJob.from_json(sys.stdin.readline())
    events = Events(os.fdopen(os.dup(1), "w"))
    cancellation = Cancellation()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", buffering=1) as log:
        # Libraries that print must not break the events.
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        threading.Thread(target=_await_cancel, args=(cancellation,), daemon=True).start()
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {job.to_json()}\n")
        try:
            events.tell("built", **_built(job, log, events, cancellation))
        except FaceDiffuserError as error:
            kind = PlanMemoryError if isinstance(error, DeviceMemoryError) else type(error)
            events.tell("failed", kind=kind.__name__, reason=str(error))
            log.write(f"{type(error).__name__}: {error}\n")
            return FAILED
    return DONE


def _built(job: PlanJob, log: TextIO, events: Events, cancellation: Cancellation) -> dict[str, Any]:
    """Build, prove and compare one plan; returns what its record says of it."""
    started = time.monotonic()
    trt = tensorrt()
    build_log = BuildLog([])

    def sink(severity: str, message: str) -> None:
        log.write(f"{severity}: {message}\n")
        if "ERROR" in severity:
            build_log.errors.append(message)

    trt_logger = logger(trt, sink)
    monitor = progress_monitor(trt, events.phase, cancellation)
    plan = plan_from_onnx(trt, trt_logger, build_log, job, monitor)
    # A build without a parent must not write where the next one may be writing already.
    if cancellation.requested:
        raise PlanCancelledError(f"{job.name}: the build was cancelled")
    with atomic_path(job.plan) as path:
        path.write_bytes(plan)
        build_s = time.monotonic() - started
        proofs = _proofs(trt, trt_logger, plan, job, events)
    return proofs | {
        "nbytes": len(plan),
        "sha256": sha256_of_file(job.plan),
        "build_s": round(build_s, 1),
    }


def _proofs(
    trt: TensorRt, trt_logger: Any, plan: bytes, job: PlanJob, events: Events
) -> dict[str, Any]:
    """Half precision and parity; raises PlanRefusedError, and nothing is published."""
    weights = job.onnx if job.options.strip_weights else None
    with ExitStack() as stack:
        gpu = stack.enter_context(opened_gpu(driver()))
        engine = engine_from_plan(trt, trt_logger, plan, job.name, weights)
        events.tell("start", phase="Inspecting layers", parent=None, number=1)
        precision = proven_precision(trt, engine, job)
        events.tell("finish", phase="Inspecting layers", parent=None, number=0)
        device_memory_nbytes = engine.device_memory_size_v2
        device_engine = TensorRtEngine(job.component, trt, engine)
        stack.callback(device_engine.close)

        def progress(done: int, of: int) -> None:
            if not done:
                events.tell("start", phase="Comparing with the CPU", parent=None, number=of)
            events.tell("step", phase="Comparing with the CPU", parent=None, number=done)

        parity = plan_parity(device_engine, gpu, job, progress)
    return {
        "precision": asdict(precision),
        "parity": asdict(parity),
        "device_memory_nbytes": device_memory_nbytes,
    }


def _await_cancel(cancellation: Cancellation) -> None:
    """Wait for the parent's word or its end."""
    word = sys.stdin.readline()
    cancellation.requested = True
    if not word:
        # Nobody is left to read events; a build that does not hear within a while is ended.
        time.sleep(_ORPHAN_S)
        os._exit(FAILED)


_ORPHAN_S = 5.0

if __name__ == "__main__":
    sys.exit(main())
