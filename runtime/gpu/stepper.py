"""Steps of one latents size and rule on the GPU: set up once, replayed for each request."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engines.contract import Component
from engines.cuda.gpu import Event, Gpu, Memory
from engines.cuda.streams import Streams
from engines.errors import FaceDiffuserError
from engines.guides import SDM_GUIDES, TDM_GUIDE, Guide
from runtime.gpu.buffers import GpuBuffers
from runtime.gpu.decoder import GpuDecoder
from runtime.gpu.faults import check_faults
from runtime.gpu.programs import Step, StepKind, StepPrograms
from runtime.method.guidance import Float32Array
from runtime.method.saliency import Saliency
from runtime.method.schedule import Stage, device_table
from runtime.request import OutputType
from runtime.result import StepSaliency
from runtime.trajectory import Drawn, Form, Trajectory

_POLL_S = 1e-4
# Three stages, decoding, the end.
MARKS = 5


@dataclass(kw_only=True, repr=False)
class GpuStepper:
    """What stays from request to request, and the trajectory that is under way.

    Between begin and finish the host only launches: nothing is allocated, copied or waited for,
    unless maps are kept (a copy that the host does not wait for) or somebody calls wait.
    """

    gpu: Gpu
    streams: Streams
    buffers: GpuBuffers
    programs: StepPrograms
    decoder: GpuDecoder
    marks: tuple[Event, ...]
    stack: ExitStack
    provider: str
    bundle: Path
    _steps: dict[Stage, Step] = field(default_factory=dict)
    _timeline: list[str] = field(default_factory=list)
    _taken: int = 0
    _kept: list[int] = field(default_factory=list)
    _maps: Memory | None = None
    _maps_stack: ExitStack = field(default_factory=ExitStack)

    def prepare(self, form: Form) -> None:
        """Capture every stage's step of this form."""
        for stage in Stage:
            self.programs.step(StepKind.of(stage, form))

    def begin(self, trajectory: Trajectory) -> None:
        """Capture what is missing, make room, upload everything the steps read."""
        # An earlier trajectory may have been left in the middle.
        self.streams.main.synchronize()
        self._trajectory = trajectory
        stages, form = trajectory.stages(), trajectory.form
        self._steps = {s: self.programs.step(StepKind.of(s, form)) for s in sorted_stages(stages)}
        self._timeline, self._kept, self._taken = [], [], 0
        if form.keeps_maps and Stage.FUSION in stages:
            self._make_room(stages.count(Stage.FUSION) * self.buffers.maps.nbytes)
        self._stage_inputs()
        inputs, pinned = self.buffers.inputs, self.buffers.pinned
        self.streams.main.upload(inputs.address, pinned.address, inputs.nbytes)

    def scene(self, step: int) -> None:
        self._launch(Stage.SCENE)

    def fusion(self, step: int) -> None:
        self._launch(Stage.FUSION)
        if self._trajectory.form.keeps_maps:
            nbytes = self.buffers.maps.nbytes
            assert self._maps is not None
            slot = self._maps.address + len(self._kept) * nbytes
            self.streams.main.download(slot, self.buffers.maps.address, nbytes)
            self._kept.append(step)

    def subject(self, step: int) -> None:
        self._launch(Stage.SUBJECT)

    def wait(self) -> None:
        """Ask the GPU again and again, so that Ctrl-C is heard."""
        event = self.streams.stepped
        self.streams.main.record(event)
        while not event.done():
            time.sleep(_POLL_S)

    def latents_reader(self) -> Callable[[], Float32Array]:
        taken, trajectory = self._taken, self._trajectory

        def read() -> Float32Array:
            if (taken, trajectory) != (self._taken, self._trajectory):
                raise FaceDiffuserError(
                    f"the latents of step {taken - 1} are gone; read them within on_step"
                )
            self._download("latents")
            self.streams.main.synchronize()
            latents: Float32Array = self.buffers.staged["latents"].copy()
            return latents

        return read

    def finish(self) -> Drawn:
        output_type = self._trajectory.output_type
        if output_type is OutputType.LATENT:
            self._download("latents")
        else:
            self._mark("decode")
            self.decoder.enqueue(self.streams.main, output_type)
        self._download("faults")
        self._mark("end")
        self.streams.main.synchronize()
        faults = self.buffers.staged["faults"]
        check_faults(faults, self._trajectory, self.provider, self.bundle)
        if output_type is OutputType.LATENT:
            images: object = self.buffers.staged["latents"].copy()
        else:
            images = self.decoder.result(output_type)
        return Drawn(images=images, saliency=self._saliency(), timings_ms=self._timings_ms())

    def close(self) -> None:
        """Graphs, then contexts, then buffers; the GPU must be done."""
        self._taken = -1  # no callback's latents can be read from here on
        self._maps_stack.close()
        self.stack.close()

    def _launch(self, stage: Stage) -> None:
        self._mark(stage.value)
        self._steps[stage]()
        self._taken += 1

    def _mark(self, name: str) -> None:
        """Note on the GPU's clock when a part begins."""
        if not self._timeline or self._timeline[-1] != name:
            self.streams.main.record(self.marks[len(self._timeline)])
            self._timeline.append(name)

    def _stage_inputs(self) -> None:
        trajectory, staged = self._trajectory, self.buffers.staged
        staged["latents"][...] = trajectory.latents
        with np.errstate(over="ignore"):
            # What half precision cannot hold comes back as a NonFiniteError.
            staged["engine_latents"][...] = trajectory.latents
        staged["timestep"][...] = trajectory.timestep(0)
        staged["clock"][...] = 0
        staged["faults"][...] = 0
        rows = device_table(trajectory.table)
        staged["table"][: len(rows)] = rows
        self._stage_embeds(Component.TDM_UNET, TDM_GUIDE)
        self._stage_embeds(Component.SDM_UNET, SDM_GUIDES[trajectory.form.guidance_rule])

    def _stage_embeds(self, component: Component, guide: Guide) -> None:
        rows = self.buffers.staged[f"{component}.prompt_embeds"]
        by_pass = rows.reshape(len(guide.passes), -1, *rows.shape[1:])
        for block, each in zip(by_pass, guide.passes, strict=True):
            block[...] = self._trajectory.embeds[each]

    def _download(self, name: str) -> None:
        staged = self.buffers.staged[name]
        address = self.buffers.tensors[name].address
        self.streams.main.download(staged.ctypes.data, address, staged.nbytes)

    def _make_room(self, nbytes: int) -> None:
        if self._maps is None or nbytes > self._maps.nbytes:
            self._maps_stack.close()
            self._maps = self.gpu.pinned(self._maps_stack, nbytes)

    def _saliency(self) -> tuple[StepSaliency, ...]:
        kept, nbytes = [], self.buffers.maps.nbytes
        for slot, step in enumerate(self._kept):
            assert self._maps is not None
            block = Memory(self._maps.address + slot * nbytes, nbytes)
            maps = self.buffers.maps_layout.on_host(block)
            saliency = Saliency(
                tdm=maps["tdm_saliency"].copy(),
                sdm=maps["sdm_saliency"].copy(),
                mask=maps["mask"].astype(np.bool_),
            )
            kept.append(StepSaliency(step, self._trajectory.timestep(step), saliency))
        return tuple(kept)

    def _timings_ms(self) -> dict[str, float]:
        names, marks = self._timeline, self.marks
        return {name: marks[i + 1].ms_since(marks[i]) for i, name in enumerate(names[:-1])}


def sorted_stages(stages: tuple[Stage, ...]) -> list[Stage]:
    """The stages there are, in their order."""
    return [stage for stage in Stage if stage in stages]
