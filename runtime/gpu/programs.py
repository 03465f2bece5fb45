"""The steps of the three stages as work for the GPU: one CUDA graph each, where engines allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from statistics import median

from engines.contract import Component
from engines.cuda.gpu import Event, Stream
from engines.cuda.graph import captured
from engines.cuda.launcher import Launch
from engines.cuda.streams import Streams
from engines.engine import DeviceEngine
from engines.guides import SDM_ALONE, SDM_GUIDES, TDM_GUIDE, GuidanceRule, Guide
from runtime.gpu.kernels import Model, StepKernels
from runtime.method.guidance import SubjectGuidance
from runtime.method.saliency import Fusion
from runtime.method.schedule import Stage
from runtime.trajectory import RequestKind, Trajectory

Step = Callable[[], None]  # puts one step on the main stream and returns


class Concurrency(Enum):
    """How the fusion stage runs its two models."""

    SERIAL = "serial"
    CONCURRENT = "concurrent"


class Unet(Enum):
    """A U-Net as a step runs it: SDM with all of its passes, or with the augmented one alone."""

    TDM = "tdm"
    SDM = "sdm"
    SDM_ALONE = "sdm alone"

    @property
    def component(self) -> Component:
        return Component.TDM_UNET if self is Unet.TDM else Component.SDM_UNET

    def guide(self, rule: GuidanceRule) -> Guide:
        """The passes it batches, and the guidance over them."""
        match self:
            case Unet.TDM:
                return TDM_GUIDE
            case Unet.SDM:
                return SDM_GUIDES[rule]
            case Unet.SDM_ALONE:
                return SDM_ALONE


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

    @property
    def unets(self) -> tuple[Unet, ...]:
        """What it runs, in this order."""
        match self.stage:
            case Stage.SCENE:
                return (Unet.TDM,)
            case Stage.FUSION:
                return (Unet.TDM, Unet.SDM)
            case Stage.SUBJECT:
                return (Unet.SDM_ALONE if self.guidance.alone else Unet.SDM,)

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


def unets_by_stage(trajectory: Trajectory) -> dict[Stage, list[Unet]]:
    """What the steps of each stage of a trajectory run, in the order of the stages."""
    found: dict[Stage, list[Unet]] = {}
    for stage, guidance in zip(trajectory.stages(), trajectory.guidance, strict=True):
        unets = found.setdefault(stage, [])
        kind = StepKind.of(stage, guidance, trajectory.kind)
        unets += [each for each in kind.unets if each not in unets]
    return found


@dataclass(repr=False)
class StepPrograms:
    """Captures each kind of step once, and keeps it until the graphs are closed.

    models: SDM_ALONE's where some step runs it. measured_ms: milliseconds a step of the fusion
    stage took either way, if it was measured. Engines that cannot be captured are enqueued anew in
    each step, one after the other.
    """

    streams: Streams
    models: Mapping[Unet, BoundModel]
    kernels: StepKernels
    graphs: ExitStack  # closed before an engine leaves the GPU or is closed
    concurrency: Concurrency = Concurrency.SERIAL
    measured_ms: Mapping[Concurrency, float] = field(default_factory=dict)
    _steps: dict[StepKind, Step] = field(default_factory=dict)

    def step(self, kind: StepKind) -> Step:
        """The step of this kind, captured now unless it was before."""
        if kind not in self._steps:
            what = f"a step of the {kind.stage.value} stage"
            step = self._recorded(kind, self.concurrency, self.graphs, what)
            self._steps[kind] = step
            self.graphs.callback(self._steps.clear)
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
        kind = StepKind(stage=Stage.FUSION)
        if not self._capturable(kind):
            self.concurrency = Concurrency.SERIAL
            return
        if wanted is not None:
            self.concurrency = wanted
            return
        with ExitStack() as stack:
            steps = {
                each: self._recorded(kind, each, stack, f"a {each.value} fusion step")
                for each in Concurrency
            }
            spent_ms = step_times(steps, self.streams.main, reset, timed, trials)
        self.measured_ms = spent_ms
        self.concurrency = min(spent_ms, key=lambda each: spent_ms[each])

    def _capturable(self, kind: StepKind) -> bool:
        return all(self.models[each].engine.capturable for each in kind.unets)

    def _recorded(
        self, kind: StepKind, concurrency: Concurrency, stack: ExitStack, what: str
    ) -> Step:
        work = self._work(kind, concurrency)
        if not self._capturable(kind):
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

    def _predictions(self, kind: StepKind, concurrency: Concurrency) -> Step:
        stream, engines = self.streams.main.handle, [self.models[u].engine for u in kind.unets]
        if kind.stage is Stage.FUSION and concurrency is Concurrency.CONCURRENT:
            tdm, sdm = engines
            return partial(self.streams.beside, on_side=sdm.enqueue, on_main=tdm.enqueue)

        def one_after_the_other() -> None:
            for engine in engines:
                engine.enqueue(stream)

        return one_after_the_other

    def _launches(self, kind: StepKind) -> tuple[Launch, ...]:
        models = [self.models[each] for each in kind.unets]
        match kind.stage:
            case Stage.SCENE:
                (tdm,) = models
                return self.kernels.guided(tdm.prediction, tdm.guide, Model.TDM)
            case Stage.SUBJECT:
                (sdm,) = models
                return self.kernels.guided(sdm.prediction, sdm.guide, Model.SDM, kind.guidance)
            case Stage.FUSION:
                tdm, sdm = models
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
