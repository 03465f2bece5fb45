"""One plan's build in a process of its own: started, listened to, cancelled.

A build gives its memory back only when its process ends.
"""

from __future__ import annotations

from collections.abc import Callable

from engines.bundle.plan_record import BuiltPlan
from engines.bundle.records import document_of, read
from engines.cli.progress import PhaseEvent
from engines.errors import (
    DriverTooOldError,
    FaceDiffuserError,
    NotInstalledError,
    PlanBuildError,
    PlanMemoryError,
    PlanRefusedError,
    PlanUnsupportedError,
    ProviderUnavailableError,
)
from engines.plans.building.job import Failure, PlanJob, WorkerMessage
from engines.system.processes import Child, Ended

# Ctrl-C ends a build within a second: a worker is asked first and ended when it does not hear.
_CANCEL_S = 0.5

_KINDS: dict[str, type[FaceDiffuserError]] = {
    kind.__name__: kind
    for kind in (
        PlanMemoryError,
        PlanUnsupportedError,
        PlanRefusedError,
        PlanBuildError,
        ProviderUnavailableError,
        NotInstalledError,
        DriverTooOldError,
    )
}

OnEvent = Callable[[PhaseEvent], None]


def plan_in_process(job: PlanJob, on_event: OnEvent) -> BuiltPlan:
    """Build one plan in a process of its own; returns what the worker found out about it.

    KeyboardInterrupt cancels the build and goes on. Raises PlanMemoryError, PlanRefusedError,
    PlanBuildError or ProviderUnavailableError.
    """
    # Ctrl-C reaches this process alone, which then cancels the worker.
    worker = Child(f"{__package__}.worker", own_session=True, keep_stderr=True)
    answer = WorkerMessage()
    try:
        worker.send(document_of(job))
        while (document := worker.receive()) is not None:
            message = read(WorkerMessage, document)
            # The clock of a worker ticks until it ends, after its answer too.
            if message.progress is None:
                answer = message
            else:
                on_event(message.progress)
        ended = worker.ended()
    finally:
        worker.close(_CANCEL_S)
    if answer.built is None:
        raise _error(job, answer.failure, ended)
    return answer.built


def _error(job: PlanJob, failure: Failure | None, ended: Ended) -> FaceDiffuserError:
    if failure is not None:
        return _KINDS.get(failure.kind, PlanBuildError)(failure.reason, fix=failure.fix)
    code = ended.code or 0
    # Linux ends a process that takes the host's last memory with SIGKILL, -9.
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    hint = " (SIGKILL: the host ran out of memory, or somebody ended it)" if code == -9 else ""
    return PlanBuildError(
        f"{job.name}: the building process {how}{hint} without a word; "
        f"{ended.last_words or 'see'} {job.log}"
    )
