"""A race: the reference's answer, every contestant's check, then each pair in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.analysis.stats import paired_ratio, summary
from benchmarks.harness.machine import described
from benchmarks.harness.record import ReferenceMismatchError, Status
from benchmarks.harness.reference_check import Agreement, Array, agreement
from benchmarks.harness.timing import interleaved_ms
from benchmarks.harness.worker import Worker, WorkerError
from benchmarks.harness.workload import SEED
from benchmarks.peers.registry import Peer
from benchmarks.peers.setup import Course
from benchmarks.peers.work import Arrays, WorkKind, load_arrays
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import ProviderUnavailableError
from export.graph.modules import module_of, run

# Equal accuracy, as relative L2 against float32: of the U-Nets' predictions where the work is one
# step, of the decoded picture where it is more.
BOUND = 2e-2
# Thread pools spin for up to 0.2 s (OpenMP's default) after work is done; a contestant must not run
# beside the threads of the one before.
SETTLE_S = 0.3


def raced(
    course: Course, home: Peer, reference: Peer, peers: Sequence[Peer], *, rounds: int
) -> list[dict[str, Any]]:
    """A row for the one at home, then one for each other peer, in turns with it.

    Raises ReferenceMismatchError where home itself does not agree with the reference.
    """
    course.prepare()
    judge = Judge(course, reference)
    with course.started(home) as worker:
        agree = judge.check(home.name, worker)
        race = Race(course, home.name, worker, judge, rounds)
        return [race.own_row(agree), *(race.row(peer) for peer in peers if peer != home)]


class Judge:
    """The reference's answer to a course, and who comes near enough to it."""

    def __init__(self, course: Course, reference: Peer) -> None:
        self._course = course
        with course.started(reference) as worker:
            self._expected = self._judged(self._answer(worker))

    def check(self, name: str, worker: Worker) -> Agreement:
        """Raises ReferenceMismatchError beyond BOUND; the run also warms the contestant up."""
        return agreement(name, self._judged(self._answer(worker)), self._expected, BOUND)

    def _answer(self, worker: Worker) -> Arrays:
        path = self._course.folder / "answer.npz"
        worker.ask(result=str(path))
        return load_arrays(path)

    def _judged(self, answer: Arrays) -> Array:
        """What is compared: all predictions of one step, else the picture."""
        if self._course.work.kind is WorkKind.STEP:
            return np.concatenate([answer[each.value] for each in NOISE_PREDICTORS])
        module = module_of(Component.VAE_DECODER, self._course.source.opened())
        picture: Array = run(module, {"latents": torch.from_numpy(answer["latents"])}).numpy()
        return picture


@dataclass(frozen=True)
class Race:
    """One contestant at home, against whom the others take turns."""

    course: Course
    home: str
    worker: Worker
    judge: Judge
    rounds: int
    settle_s: float = SETTLE_S

    def own_row(self, agree: Agreement) -> dict[str, Any]:
        """The home contestant alone."""
        lap = Lap(self.worker, self.settle_s)
        times = [lap() for _ in range(self.rounds)]
        return self._common(self.home) | _figures(agree, times, lap)

    def row(self, peer: Peer) -> dict[str, Any]:
        """Check a peer, then let both take turns; one that cannot is skipped or refused."""
        row = self._common(peer.name)
        try:
            if peer.isa is not None and peer.isa not in described()["isa"]:
                raise ProviderUnavailableError(f"this processor has no {peer.isa}")
            with self.course.started(peer) as away:
                return row | self._raced(peer, away)
        except ProviderUnavailableError as error:
            return row | {"status": Status.SKIPPED.value, "reason": str(error)}
        except (ReferenceMismatchError, WorkerError) as error:
            return row | {"status": Status.REFUSED.value, "reason": str(error)}

    def _raced(self, peer: Peer, away: Worker) -> dict[str, Any]:
        agree = self.judge.check(peer.name, away)
        lap = Lap(away, self.settle_s)
        laps = {self.home: Lap(self.worker, self.settle_s), peer.name: lap}
        times = interleaved_ms(laps, rounds=self.rounds, seed=SEED)
        ratio = paired_ratio(times[peer.name], times[self.home])
        return _figures(agree, times[peer.name], lap) | {
            "against": self.home,
            "against_p50_ms": summary(times[self.home]).p50,
            "times_as_long": ratio.ratio,
            "low": ratio.low,
            "high": ratio.high,
        }

    def _common(self, name: str) -> dict[str, Any]:
        work = self.course.work
        return {
            "work": work.kind.value,
            "steps": work.count,
            "size_px": work.size_px,
            "peer": name,
            "threads": self.course.threads,
            "rounds": self.rounds,
        }


class Lap:
    """One run of a contestant; gives its milliseconds and keeps what else it answered."""

    def __init__(self, worker: Worker, settle_s: float) -> None:
        self.worker, self._settle_s = worker, settle_s
        self.last: dict[str, Any] = {}

    def __call__(self) -> float:
        time.sleep(self._settle_s)
        self.last = self.worker.ask()
        return float(self.last["ms"])


def _figures(agree: Agreement, times: Sequence[float], lap: Lap) -> dict[str, Any]:
    found = summary(times)
    return agree.to_json() | {
        "status": Status.MEASURED.value,
        "p50_ms": found.p50,
        "spread": found.spread,
        "load_s": lap.worker.started["load_s"],
        "peak_rss_nbytes": lap.last["peak_rss_nbytes"],
        "gpu_nbytes": lap.last["gpu_nbytes"],
    }
