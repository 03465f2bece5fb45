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
from runtime.method.guidance import SubjectGuidance
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
    """What a step's work depends on.

    guidance: of the subject stage. saliency: whether the step leaves maps to be kept.
    """

    stage: Stage
    guidance: SubjectGuidance = SubjectGuidance.FULL
    fusion: Fusion = Fusion.SALIENCY
    saliency: bool = False

    @classmethod
    def of(cls, stage: Stage, guidance: SubjectGuidance, request: RequestKind) -> StepKind:
        """The kind of a step in requests of a kind."""
        if stage is Stage.SUBJECT:
            return cls(stage=stage, guidance=guidance)
        if stage is Stage.SCENE:
            return cls(stage=stage)
        return cls(stage=stage, fusion=request.fusion, saliency=request.keeps_maps)

    @classmethod
    def all_of(cls, request: RequestKind) -> list[StepKind]:
        """Every kind of step that requests of a kind may have."""
        others = (
            cls.of(each, SubjectGuidance.FULL, request) for each in (Stage.SCENE, Stage.FUSION)
        )
        subject = (each for each in SubjectGuidance if each in request.guidance)
        return [*others, *(cls.of(Stage.SUBJECT, each, request) for each in subject)]


@dataclass(repr=False)
class StepPrograms:
    """Captures each kind of step once, and keeps it.

    measured_ms: milliseconds a step of the fusion stage took either way, if it was measured.
    Engines that cannot be captured are enqueued anew in each step, one after the other.
    """

    streams: Streams
    tdm: BoundModel
    sdm: BoundModel
    sdm_alone: BoundModel | None  # where some step runs its augmented pass by itself
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
            what = f"a step of the {kind.stage.value} stage"
            self._steps[kind] = self._recorded(work, self.graphs, what)
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
            steps = {
                each: self._recorded(self._work(kind, each), stack, f"a {each.value} fusion step")
                for each in Concurrency
            }
            spent_ms = step_times(steps, self.streams.main, reset, timed, trials)
        self.measured_ms = spent_ms
        self.concurrency = min(spent_ms, key=lambda each: spent_ms[each])

    def _recorded(self, work: Step, stack: ExitStack, what: str) -> Step:
        if not self.capturable:
            return work
        return captured(self.streams.main, stack, work, what).launch

    def _work(self, kind: StepKind, concurrency: Concurrency) -> Step:
        predict, launches = self._predictions(kind, concurrency), self._launches(kind)
        stream = self.streams.main.handle

        def work() -> None:
            predict()
            for launch in launches:
                launch.enqueue(stream)

        return work

    def _subject(self, guidance: SubjectGuidance) -> BoundModel:
        if not guidance.alone:
            return self.sdm
        assert self.sdm_alone is not None  # of the request's kind, with which all was set up
        return self.sdm_alone

    def _predictions(self, kind: StepKind, concurrency: Concurrency) -> Step:
        stream, tdm, sdm = self.streams.main.handle, self.tdm.engine, self.sdm.engine

        def one_after_the_other() -> None:
            tdm.enqueue(stream)
            sdm.enqueue(stream)

        match kind.stage:
            case Stage.SCENE:
                return partial(tdm.enqueue, stream)
            case Stage.SUBJECT:
                return partial(self._subject(kind.guidance).engine.enqueue, stream)
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
                model = self._subject(kind.guidance)
                return self.kernels.guided(model.prediction, model.guide, Model.SDM, kind.guidance)
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
