"""Everything that a GPU can tell, in under nine minutes; appends each part's record.

    python -m benchmarks gpu [--quick] [--bundle BUNDLE]

The peaks, the kernels, PyTorch eager and compiled at Stable Diffusion 1.5's size with random
weights (no download, no export), and the runtime's latency where a bundle is at hand. Each part is
a command of its own that may also be typed alone; what the time does not suffice for is recorded as
skipped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.analysis.peaks import peaks
from benchmarks.harness.backends import TORCH
from benchmarks.harness.machine import gpu_facts, usable_cpus
from benchmarks.harness.record import Status, record
from benchmarks.harness.worker import Worker
from engines.bundle.manifest import MANIFEST_NAME
from engines.errors import ProviderUnavailableError

BUDGET_S = 9 * 60.0
# It passes the folder of the records on.
RUNS_OTHERS = True
# Less than this is not worth starting a part for.
LEAST_S = 20.0

Run = Callable[[Sequence[str], float], "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a part ended. code: its exit code, None where it ran out of time."""

    code: int | None
    reason: str


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--bundle", type=Path, default=Path("bundle"))
    flags.add_argument("--provider", default=TORCH, help="to race with PyTorch on the bundle")
    flags.add_argument("--budget-s", type=float, default=BUDGET_S)


def measured(
    *, quick: bool, bundle: Path, provider: str, budget_s: float, results: Path | None
) -> dict[str, Any]:
    """A row per part; raises ProviderUnavailableError without a GPU."""
    started = time.monotonic()
    facts_of_gpu = gpu_facts()
    if facts_of_gpu is None:
        raise ProviderUnavailableError("there is no NVIDIA GPU here, so nothing was measured")
    arguments = {"device": "cuda", "threads": usable_cpus(), "quick": quick}
    with Worker(peaks, arguments) as worker:
        facts = {"peaks": worker.ask(), "budget_s": budget_s}
    left = budget_s - (time.monotonic() - started)
    rows = run_parts(parts(bundle, provider, quick=quick), left, partial(run_command_line, results))
    return record("gpu", rows, gpu=facts_of_gpu["name"], facts=facts)


def parts(bundle: Path, provider: str, *, quick: bool) -> dict[str, list[str]]:
    """What to type after `python -m benchmarks`, most wanted first."""
    flags = ["--quick"] if quick else []
    peers = ["peers", "--device", "cuda", "--without-bundle", "--model", "random", *flags]
    names = ["eager fp16", "torch.compile fp16"]
    found = {"kernels": ["kernels", *flags]}
    if (bundle / MANIFEST_NAME).is_file():
        found["latency"] = ["latency", "--bundle", str(bundle), *flags]
        found["the bundle against PyTorch, 50 steps"] = [
            "peers", "--device", "cuda", "--bundle", str(bundle), "--provider", provider,
            "--work", "trajectory", "--steps", "50", "--rounds", "5", "--peers", *names,
        ]  # fmt: skip
    found["PyTorch, one fusion step"] = [*peers, "--work", "step", "--peers", *names]
    found["PyTorch, 50 steps"] = [
        *peers, "--work", "trajectory", "--steps", "50", "--rounds", "3", "--peers", *names,
    ]  # fmt: skip
    return found


def run_parts(wanted: dict[str, list[str]], budget_s: float, run: Run) -> list[dict[str, Any]]:
    """Run each with what time is left; a part that fails does not keep the others from running."""
    end = time.monotonic() + budget_s
    rows = []
    for name, command in wanted.items():
        start = time.monotonic()
        row = {"part": name, "command": " ".join(["python -m benchmarks", *command])}
        if end - start < LEAST_S:
            rows.append(row | {"status": Status.SKIPPED.value, "s": 0.0, "reason": "no time left"})
            continue
        outcome = run(command, end - start)
        status = Status.MEASURED if outcome.code == 0 else Status.FAILED
        spent = time.monotonic() - start
        rows.append(row | {"status": status.value, "s": spent, "reason": outcome.reason})
    return rows


def run_command_line(results: Path | None, command: Sequence[str], limit_s: float) -> Outcome:
    """In a process of its own, ended at the limit; its records go where all records go."""
    words = [sys.executable, "-m", "benchmarks", *command]
    if results is not None:
        words += ["--results", str(results)]
    try:
        finished = subprocess.run(
            words, stderr=subprocess.PIPE, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, f"not done after {limit_s:.0f} s")
    last = (finished.stderr.strip().splitlines() or [""])[-1]
    return Outcome(finished.returncode, last if finished.returncode else "")
