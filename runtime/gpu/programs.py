"""The steps of the three stages as work for the GPU: one CUDA graph each, where engines allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from statistics import median

from engines.cuda.gpu import Event, Stream
from engines.cuda.graph import captured
from engines.cuda.launcher import Launch
from engines.cuda.streams import Streams
from engines.engine import DeviceEngine
from engines.guides import Guide
from runtime.gpu.kernels import Model, StepKernels
from runtime.method.saliency import Fusion
from runtime.method.schedule import Stage
from runtime.trajectory import RequestKind

Step = Callable[[], None]  # puts one step on the main stream and returns


class Concurrency(Enum):
    """How the fusion stage runs its two models."""

    SERIAL = "serial"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, kw_only=True)
class BoundModel:
    """A U-Net, bound: what it predicts, and the guidance over its passes."""

    engine: DeviceEngine
    prediction: int  # device address of [passes * images, 4, h, w]
    guide: Guide


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """What a step's work depends on. saliency: whether the step leaves maps to be kept."""

    stage: Stage
    fusion: Fusion = Fusion.SALIENCY
    saliency: bool = False

    @classmethod
    def of(cls, stage: Stage, request: RequestKind) -> StepKind:
        """The kind of this stage's steps in requests of a kind."""
        if stage is not Stage.FUSION:
            return cls(stage=stage)
        return cls(stage=stage, fusion=request.fusion, saliency=request.keeps_maps)


@dataclass(repr=False)
class StepPrograms:
    """Captures each kind of step once, and keeps it.

    measured_ms: milliseconds a step of the fusion stage took either way, if it was measured.
    Engines that cannot be captured are enqueued anew in each step, one after the other.
    """

    streams: Streams
    tdm: BoundModel
    sdm: BoundModel
    kernels: StepKernels
    graphs: ExitStack  # closed by the caller, before the engines
    concurrency: Concurrency = Concurrency.SERIAL
    measured_ms: Mapping[Concurrency, float] = field(default_factory=dict)
    _steps: dict[StepKind, Step] = field(default_factory=dict)

    @property
    def capturable(self) -> bool:
        return self.tdm.engine.capturable and self.sdm.engine.capturable

    def step(self, kind: StepKind) -> Step:
        """The step of this kind, captured now unless it was before."""
        if kind not in self._steps:
            work = self._work(kind, self.concurrency)
            self._steps[kind] = self._recorded(work, self.graphs)
        return self._steps[kind]

    def choose_concurrency(
        self,
        wanted: Concurrency | None,
        reset: Callable[[], None],
        timed: Sequence[Event],
        trials: int,
    ) -> None:
        """Take the wanted way to run the fusion stage, or where there is none, the faster.

        reset is called before each trial. Engines that cannot be captured stay serial.
        """
        if not self.capturable:
            self.concurrency = Concurrency.SERIAL
            return
        if wanted is not None:
            self.concurrency = wanted
            return
        kind = StepKind(stage=Stage.FUSION)
        with ExitStack() as stack:
            steps = {each: self._recorded(self._work(kind, each), stack) for each in Concurrency}
            spent_ms = step_times(steps, self.streams.main, reset, timed, trials)
        self.measured_ms = spent_ms
        self.concurrency = min(spent_ms, key=lambda each: spent_ms[each])

    def _recorded(self, work: Step, stack: ExitStack) -> Step:
        if not self.capturable:
            return work
        return captured(self.streams.main, stack, work).launch

    def _work(self, kind: StepKind, concurrency: Concurrency) -> Step:
        predict, launches = self._predictions(kind.stage, concurrency), self._launches(kind)
        stream = self.streams.main.handle

        def work() -> None:
            predict()
            for launch in launches:
                launch.enqueue(stream)

        return work

    def _predictions(self, stage: Stage, concurrency: Concurrency) -> Step:
        stream, tdm, sdm = self.streams.main.handle, self.tdm.engine, self.sdm.engine

        def one_after_the_other() -> None:
            tdm.enqueue(stream)
            sdm.enqueue(stream)

        match stage:
            case Stage.SCENE:
                return partial(tdm.enqueue, stream)
            case Stage.SUBJECT:
                return partial(sdm.enqueue, stream)
            case Stage.FUSION if concurrency is Concurrency.CONCURRENT:
                return partial(self.streams.beside, on_side=sdm.enqueue, on_main=tdm.enqueue)
            case Stage.FUSION:
                return one_after_the_other

    def _launches(self, kind: StepKind) -> tuple[Launch, ...]:
        tdm, sdm = self.tdm, self.sdm
        match kind.stage:
            case Stage.SCENE:
                return self.kernels.guided(tdm.prediction, tdm.guide, Model.TDM)
            case Stage.SUBJECT:
                return self.kernels.guided(sdm.prediction, sdm.guide, Model.SDM)
            case Stage.FUSION:
                return self.kernels.fusion(
                    (tdm.prediction, sdm.prediction),
                    (tdm.guide, sdm.guide),
                    kind.fusion,
                    keep_saliency=kind.saliency,
                )


def step_times(
    steps: Mapping[Concurrency, Step],
    stream: Stream,
    reset: Callable[[], None],
    timed: Sequence[Event],
    trials: int,
) -> dict[Concurrency, float]:
    """Median milliseconds of each step on the GPU's clock, taken in turns after one unmeasured."""
    spent: dict[Concurrency, list[float]] = {each: [] for each in steps}
    start, end = timed
    for trial in range(trials + 1):
        for each, step in steps.items():
            reset()
            stream.record(start)
            step()
            stream.record(end)
            stream.synchronize()
            if trial:
                spent[each].append(end.ms_since(start))
    return {each: median(times) for each, times in spent.items()}
