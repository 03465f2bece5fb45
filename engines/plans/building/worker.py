"""The process that builds one plan, started by engines.plans.building.child.

The job comes as the first line of stdin; another line, or the end of stdin because the parent is
gone, cancels. Messages leave on what was stdout; whatever else prints goes to the build log.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, TextIO

from engines.bundle.files import atomic_path, file_record
from engines.bundle.plan_record import BuildProofs, BuiltPlan, ToldBy
from engines.bundle.records import document_of, from_json, to_json
from engines.cli.progress import PhaseEvent
from engines.cuda.driver import driver
from engines.cuda.gpu import opened_gpu
from engines.errors import (
    DeviceMemoryError,
    FaceDiffuserError,
    PlanMemoryError,
    PlanRefusedError,
)
from engines.plans.building.build_log import BuildLog
from engines.plans.building.job import Failure, PlanJob, WorkerMessage
from engines.plans.building.monitor import Cancellation, PlanCancelledError, progress_monitor
from engines.plans.building.plan_from_onnx import Built, plan_from_onnx
from engines.plans.proofs.attention import proven_attention
from engines.plans.proofs.layers import layers_of_log
from engines.plans.proofs.parity import plan_parity
from engines.plans.proofs.precision import inspected_layers, proven_layers
from engines.plans.proofs.quantization import proven_quantization
from engines.system.processes import ParentPipe
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.libraries import LIBRARIES
from engines.tensorrt.library import load, logger
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

    def tick(self) -> None:
        """Say once a second that the build goes on, until the process ends."""
        while True:
            time.sleep(1)
            self.tell(WorkerMessage(progress=PhaseEvent(kind="tick")))

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
        threading.Thread(target=parent.tick, daemon=True).start()
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
    """Build and prove one plan, and compare it where there is a GPU; what fails is nowhere."""
    started = time.monotonic()
    library = LIBRARIES[job.spec.library]
    trt = load(library)
    build_log = BuildLog(file=log)
    trt_logger = logger(trt, build_log.hear, build_log.hear_verbose)
    monitor = progress_monitor(trt, parent.phase, cancellation)
    built = plan_from_onnx(trt, trt_logger, build_log, job, monitor)
    # A build without a parent must not write where the next one may be writing already.
    if cancellation.requested:
        raise PlanCancelledError(f"{job.name}: the build was cancelled")
    with ExitStack() as stack:
        path = stack.enter_context(atomic_path(job.plan))
        path.write_bytes(built.plan)
        plan = BuiltPlan(
            file=file_record(path),
            optimization_level=job.optimization_level,
            build_s=round(time.monotonic() - started, 1),
            device_memory_nbytes=build_log.activations_nbytes() or 0,
            weights_nbytes=build_log.weights_nbytes(),
            proofs=BuildProofs(network=built.network, layers=None, attention=None),
            parity=None,
        )
        if library.builds_without_gpu:
            return replace(plan, proofs=proofs_of_log(job, built, build_log))
        gpu = stack.enter_context(opened_gpu(driver()))
        engine = engine_from_plan(library, trt, trt_logger, built.plan, job.name)
        parent.phase("start", "Inspecting layers", None, 1)
        layers = proven_layers(inspected_layers(trt, engine, job), ToldBy.INSPECTOR, job)
        parent.phase("finish", "Inspecting layers", None, 0)
        device_engine = TensorRtEngine(job.spec.component, trt, engine)
        stack.callback(device_engine.close)

        def progress(done: int, of: int) -> None:
            if not done:
                parent.phase("start", "Comparing with the CPU", None, of)
            parent.phase("step", "Comparing with the CPU", None, done)

        return replace(
            plan,
            device_memory_nbytes=engine.device_memory_size_v2,
            proofs=replace(plan.proofs, layers=layers),
            parity=plan_parity(device_engine, gpu, job, progress),
        )


def proofs_of_log(job: PlanJob, built: Built, log: BuildLog) -> BuildProofs:
    """What the log of a build without a GPU proves; raises PlanRefusedError."""
    layers = layers_of_log(log.verbose)
    told = proven_layers(layers, ToldBy.BUILD_LOG, job)
    if told is None or log.activations_nbytes() is None:
        raise PlanRefusedError(
            f"{job.name}: the build's log tells no layers or sizes, so nothing is proved of it; "
            f"the plan is not published; see {job.log}"
        )
    attention = None
    if built.attention is not None:
        attention = proven_attention(built.attention, layers, job)
    return BuildProofs(
        network=built.network,
        layers=told,
        attention=attention,
        quantized=proven_quantization(layers, job),
    )


def _await_cancel(cancellation: Cancellation) -> None:
    """Wait for the parent's word or its end; a build that then does not stop is ended."""
    sys.stdin.readline()
    cancellation.requested = True
    time.sleep(_STOP_S)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
