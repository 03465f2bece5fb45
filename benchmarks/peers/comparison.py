"""A comparison: the reference's answer, everyone's check against it, then each pair in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.analysis.stats import paired_ratio, summary
from benchmarks.harness.machine import instruction_sets
from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.harness.reference_check import Array, agreement
from benchmarks.harness.timing import interleaved_ms
from benchmarks.harness.worker import Worker, WorkerError
from benchmarks.harness.workload import SEED
from benchmarks.peers.registry import Peer
from benchmarks.peers.setup import Setup
from benchmarks.peers.work import Arrays, TimedRun, WorkKind, load_arrays
from benchmarks.schema.facts import Agreement
from benchmarks.schema.peers import ComparedPeer, MeasuredPeer, PeerRow, UnmeasuredPeer
from benchmarks.schema.record import Status
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import ProviderUnavailableError
from export.graph.modules import module_of, run

# Equal accuracy, as relative L2 against float32: of the U-Nets' predictions where the work is one
# step, of the decoded picture where it is more.
BOUND = 2e-2
# Thread pools spin for up to 0.2 s (OpenMP's default) after work is done; a run must not share the
# processors with the threads of the one before.
SETTLE_S = 0.3


def compared(
    setup: Setup,
    ours: Peer,
    reference: Peer,
    peers: Sequence[Peer],
    *,
    rounds: int,
    bound: float = BOUND,
) -> Iterator[MeasuredPeer | UnmeasuredPeer]:
    """A row for ours, then one for each other peer, in turns with it; each as it is measured.

    bound: ours' from the reference, and that of peers in 8 bits; the others' is BOUND. Raises
    ReferenceMismatchError where ours itself does not agree with the reference.
    """
    setup.prepare()
    check = AnswerCheck(setup, reference)
    with setup.started(ours) as worker:
        agree = check.agreement(ours.name, worker, bound)
        comparison = Comparison(setup, ours.name, worker, check, rounds, bound)
        yield comparison.own_row(agree)
        for peer in peers:
            if peer != ours:
                yield comparison.row(peer)


class AnswerCheck:
    """The reference's answer to a setup's work, and who comes near enough to it."""

    def __init__(self, setup: Setup, reference: Peer) -> None:
        self._setup = setup
        with setup.started(reference) as worker:
            self._expected = self._checked_part(self._answer(worker))

    def agreement(self, name: str, worker: Worker[TimedRun], bound: float = BOUND) -> Agreement:
        """Raises ReferenceMismatchError beyond the bound; the run is also the worker's warm-up."""
        return agreement(name, self._checked_part(self._answer(worker)), self._expected, bound)

    def _answer(self, worker: Worker[TimedRun]) -> Arrays:
        path = self._setup.folder / "answer.npz"
        worker.ask(result=str(path))
        return load_arrays(path)

    def _checked_part(self, answer: Arrays) -> Array:
        """What is held against the reference: all predictions of one step, else the picture."""
        if self._setup.work.kind is WorkKind.STEP:
            return np.concatenate([answer[each.value] for each in NOISE_PREDICTORS])
        module = module_of(Component.VAE_DECODER, self._setup.source.opened())
        picture: Array = run(module, {"latents": torch.from_numpy(answer["latents"])}).numpy()
        return picture


@dataclass(frozen=True)
class Comparison:
    """Ours, in a worker that stays, and peers that take turns with it one after the other.

    ours: its name; where no bundle takes part, the reference's. eight_bit_bound: of peers in 8
    bits.
    """

    setup: Setup
    ours: str
    worker: Worker[TimedRun]
    check: AnswerCheck
    rounds: int
    eight_bit_bound: float = BOUND
    settle_s: float = SETTLE_S

    def own_row(self, agree: Agreement) -> MeasuredPeer:
        """Ours alone."""
        own = Run(self.worker, self.settle_s)
        times = [own() for _ in range(self.rounds)]
        return self._measured(self.ours, agree, times, own)

    def row(self, peer: Peer) -> ComparedPeer | UnmeasuredPeer:
        """Check a peer, then let both take turns; one that cannot is skipped or refused."""
        try:
            if peer.isa is not None and peer.isa not in instruction_sets():
                raise ProviderUnavailableError(f"this processor has no {peer.isa}")
            with self.setup.started(peer) as worker:
                return self._compared(peer, worker)
        except ProviderUnavailableError as error:
            return self._unmeasured(peer, Status.SKIPPED, error)
        except (ReferenceMismatchError, WorkerError) as error:
            return self._unmeasured(peer, Status.REFUSED, error)

    def _compared(self, peer: Peer, worker: Worker[TimedRun]) -> ComparedPeer:
        bound = self.eight_bit_bound if peer.eight_bit else BOUND
        agree = self.check.agreement(peer.name, worker, bound)
        own, theirs = Run(self.worker, self.settle_s), Run(worker, self.settle_s)
        times = interleaved_ms({self.ours: own, peer.name: theirs}, rounds=self.rounds, seed=SEED)
        ratio = paired_ratio(times[peer.name], times[self.ours])
        return ComparedPeer(
            **vars(self._measured(peer.name, agree, times[peer.name], theirs)),
            against=self.ours,
            against_p50_ms=summary(times[self.ours]).p50,
            times_as_long=ratio.ratio,
            low=ratio.low,
            high=ratio.high,
        )

    def _measured(
        self, name: str, agree: Agreement, times: Sequence[float], timed: Run
    ) -> MeasuredPeer:
        found, last = summary(times), timed.last
        return MeasuredPeer(
            **vars(self._row(name)),
            relative_l2=agree.relative_l2,
            bound=agree.bound,
            p50_ms=found.p50,
            spread=found.spread,
            load_s=timed.worker.started.load_s,
            peak_rss_nbytes=last.peak_rss_nbytes,
            gpu_nbytes=last.gpu_nbytes,
        )

    def _unmeasured(self, peer: Peer, status: Status, error: Exception) -> UnmeasuredPeer:
        return UnmeasuredPeer(**vars(self._row(peer.name)), status=status, reason=str(error))

    def _row(self, name: str) -> PeerRow:
        work = self.setup.work
        return PeerRow(
            work=work.kind,
            steps=work.count,
            size_px=work.size_px,
            peer=name,
            threads=self.setup.threads,
            rounds=self.rounds,
        )


class Run:
    """One run of a worker's work; gives its milliseconds and keeps what else it answered."""

    last: TimedRun

    def __init__(self, worker: Worker[TimedRun], settle_s: float) -> None:
        self.worker, self._settle_s = worker, settle_s

    def __call__(self) -> float:
        time.sleep(self._settle_s)
        self.last = self.worker.ask()
        return self.last.ms
