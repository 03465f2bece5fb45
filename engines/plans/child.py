"""Starting a plan worker, listening to it, cancelling it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.errors import (
    FaceDiffuserError,
    PlanBuildError,
    PlanRefusedError,
    ProviderUnavailableError,
)
from engines.plans.job import PlanJob
from engines.plans.plan_from_onnx import PlanMemoryError

# Ctrl-C ends a build within a second: a worker is asked first and ended when it does not hear.
_CANCEL_S = 0.7

_KINDS: dict[str, type[FaceDiffuserError]] = {
    kind.__name__: kind
    for kind in (PlanMemoryError, PlanRefusedError, PlanBuildError, ProviderUnavailableError)
}

# Receives each event of a worker: {"event": "start" | "step" | "finish", "phase": ..., ...}.
OnEvent = Callable[[dict[str, Any]], None]


def plan_in_process(job: PlanJob, on_event: OnEvent) -> dict[str, Any]:
    """Build one plan in a process of its own; returns what the worker found out about it.

    KeyboardInterrupt cancels the build and goes on. Raises PlanMemoryError, PlanRefusedError,
    PlanBuildError or ProviderUnavailableError.
    """
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    worker = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        # Ctrl-C reaches this process alone, which then cancels the worker.
        start_new_session=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    try:
        worker.stdin.write(job.to_json() + "\n")
        worker.stdin.flush()
        outcome: dict[str, Any] = {}
        for line in worker.stdout:
            event = json.loads(line)
            if event["event"] in ("built", "failed"):
                outcome = event
            else:
                on_event(event)
        traceback = worker.stderr.read()
        worker.wait()
    except BrokenPipeError:
        traceback = worker.stderr.read()
        outcome = {}
        worker.wait()
    finally:
        _end(worker)
    if outcome.get("event") != "built":
        raise _error(job, outcome, worker.returncode, traceback)
    return {name: value for name, value in outcome.items() if name != "event"}


def _end(worker: subprocess.Popen[str]) -> None:
    """Cancel a worker that still runs, and close its pipes."""
    if worker.poll() is None:
        try:
            assert worker.stdin is not None
            worker.stdin.write("cancel\n")
            worker.stdin.flush()
            worker.wait(_CANCEL_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            worker.kill()
            worker.wait()
    for pipe in (worker.stdin, worker.stdout, worker.stderr):
        if pipe is not None:
            pipe.close()


def _error(job: PlanJob, outcome: dict[str, Any], code: int, traceback: str) -> FaceDiffuserError:
    if outcome:
        return _KINDS.get(outcome["kind"], PlanBuildError)(outcome["reason"])
    last = (traceback.strip().splitlines() or [""])[-1]
    # Linux ends a process that takes the host's last memory with SIGKILL, -9.
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    hint = " (SIGKILL: the host ran out of memory, or somebody ended it)" if code == -9 else ""
    return PlanBuildError(
        f"{job.name}: the building process {how}{hint} without a word; {last or 'see'} {job.log}"
    )
