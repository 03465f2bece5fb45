"""One trajectory on the GPU: what it was given, the steps it has taken, what it kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from engines.contract import NOISE_PREDICTORS, Component
from engines.cuda.gpu import Event, Memory, Stream
from engines.errors import FaceDiffuserError
from engines.guides import SDM_ALONE, SDM_GUIDES, TDM_GUIDE, Guide
from runtime.gpu.buffers import ALONE_EMBEDS
from runtime.gpu.faults import check_faults, check_predictions
from runtime.gpu.programs import StepKind, Unet, unets_by_stage
from runtime.gpu.steps import AHEAD, MARKED, GpuSteps
from runtime.method.guidance import Float32Array
from runtime.method.saliency import Saliency
from runtime.method.schedule import Stage, device_table
from runtime.request import OutputType
from runtime.result import StepSaliency
from runtime.trajectory import Drawn, Trajectory

_POLL_S = 1e-4


class GpuRun:
    """A Stepper whose turn it is on what GpuSteps keeps.

    Until finish the host only launches: nothing is allocated, copied or waited for, unless maps are
    kept or steps are marked (a copy each that the host does not wait for) or somebody calls wait,
    or, in low memory, a stage begins.
    """

    # While the host looks whether a step is done, and tells of it, the GPU has the next to do.
    ahead = AHEAD

    def __init__(self, steps: GpuSteps, trajectory: Trajectory) -> None:
        """Capture what is missing, make room, upload everything the steps read."""
        self._steps, self._trajectory = steps, trajectory
        self._stream, self._turn, self._told = steps.streams.main, steps.next_turn(), -1
        stages, kind = trajectory.stages(), trajectory.kind
        self._kinds = [
            StepKind.of(stage, guidance, kind)
            for stage, guidance in zip(stages, trajectory.guidance, strict=True)
        ]
        steps.prepare(self._kinds)
        unets = unets_by_stage(trajectory)
        models = steps.programs.models
        self._engines = {stage: [models[u].engine for u in its] for stage, its in unets.items()}
        whole = {
            unet.component for its in unets.values() for unet in its if unet is not Unet.SDM_ALONE
        }
        self._predictors = [each for each in NOISE_PREDICTORS if each in whole]
        self._slots = steps.maps.slots(stages.count(Stage.FUSION) if kind.keeps_maps else 0)
        self._kept: dict[int, Memory] = {}
        self._timeline = Timeline(self._stream, steps.marks)
        self._stage_inputs()
        inputs, pinned = steps.buffers.inputs, steps.buffers.pinned
        self._stream.upload(inputs.address, pinned.address, inputs.nbytes)

    def scene(self, step: int) -> None:
        self._launch(step, Stage.SCENE)

    def fusion(self, step: int) -> None:
        self._launch(step, Stage.FUSION)
        if self._trajectory.kind.keeps_maps:
            slot = self._slots[len(self._kept)]
            self._stream.download(slot.address, self._steps.buffers.maps.address, slot.nbytes)
            self._kept[step] = slot

    def subject(self, step: int) -> None:
        self._launch(step, Stage.SUBJECT)

    def mark(self, step: int) -> None:
        """Let the step's latents be copied to where the host reads them; waits for nothing."""
        mark, buffers = self._steps.step_marks[step % MARKED], self._steps.buffers
        told, latents = mark.latents, buffers.tensors["latents"]
        self._stream.download(told.address, latents.address, told.nbytes)
        self._stream.record(mark.done)

    def wait(self, step: int) -> None:
        """Ask the GPU again and again, so that Ctrl-C is heard."""
        self._told = step
        while not self._steps.step_marks[step % MARKED].done.done():
            time.sleep(_POLL_S)

    def latents_reader(self, step: int) -> Callable[[], Float32Array]:
        kept, shape = self._steps.step_marks[step % MARKED].latents, self._trajectory.latents.shape

        def read() -> Float32Array:
            if step != self._told or self._turn != self._steps.turn:
                raise FaceDiffuserError(
                    f"the latents of step {step} are gone; read them within on_step"
                )
            latents: Float32Array = kept.array(0, shape, np.float32).copy()
            return latents

        return read

    def finish(self) -> Drawn:
        steps, output_type = self._steps, self._trajectory.output_type
        if output_type is OutputType.LATENT:
            self._download("latents")
        else:
            self._timeline.mark("decode")
            steps.residents.hold([steps.decoder.engine])
            steps.decoder.enqueue(self._stream, output_type)
        self._download("faults")
        device, host = steps.buffers.predictions, steps.buffers.predicted
        self._stream.download(host.address, device.address, device.nbytes)
        self._timeline.mark("end")
        self._stream.synchronize()
        staged = steps.buffers.staged
        check_faults(staged["faults"], self._trajectory, steps.provider, steps.bundle)
        predictions = {each: staged[f"{each}.noise_prediction"] for each in self._predictors}
        check_predictions(predictions, steps.provider, steps.bundle)
        if output_type is OutputType.LATENT:
            images: object = self._latents()
        else:
            images = steps.decoder.result(output_type)
            steps.decoder.check(self._stream, output_type, steps.provider, steps.bundle)
        return Drawn(images=images, saliency=self._saliency(), timings_ms=self._timeline.spent_ms())

    def _launch(self, step: int, stage: Stage) -> None:
        self._timeline.mark(stage.value)
        self._steps.residents.hold(self._engines[stage])
        self._steps.programs.step(self._kinds[step])()

    def _stage_inputs(self) -> None:
        trajectory, staged = self._trajectory, self._steps.buffers.staged
        staged["latents"][...] = trajectory.latents
        with np.errstate(over="ignore"):
            # What half precision cannot hold comes back as a NonFiniteError.
            staged["engine_latents"][...] = trajectory.latents
        staged["timestep"][...] = trajectory.timestep(0)
        staged["clock"][...] = 0
        staged["faults"][...] = 0
        rows = device_table(trajectory.table)
        staged["table"][: len(rows)] = rows
        self._stage_embeds(f"{Component.TDM_UNET}.prompt_embeds", TDM_GUIDE)
        sdm_guide = SDM_GUIDES[trajectory.kind.guidance_rule]
        self._stage_embeds(f"{Component.SDM_UNET}.prompt_embeds", sdm_guide)
        self._stage_embeds(ALONE_EMBEDS, SDM_ALONE)

    def _stage_embeds(self, name: str, guide: Guide) -> None:
        rows = self._steps.buffers.staged[name]
        by_pass = rows.reshape(len(guide.passes), -1, *rows.shape[1:])
        for block, each in zip(by_pass, guide.passes, strict=True):
            block[...] = self._trajectory.embeds[each]

    def _download(self, name: str) -> None:
        buffers = self._steps.buffers
        staged = buffers.staged[name]
        self._stream.download(staged.ctypes.data, buffers.tensors[name].address, staged.nbytes)

    def _latents(self) -> Float32Array:
        """A copy of what was downloaded."""
        latents: Float32Array = self._steps.buffers.staged["latents"].copy()
        return latents

    def _saliency(self) -> tuple[StepSaliency, ...]:
        return tuple(
            StepSaliency(step, self._trajectory.timestep(step), self._maps(slot))
            for step, slot in self._kept.items()
        )

    def _maps(self, slot: Memory) -> Saliency:
        maps = self._steps.maps.layout.on_host(slot)
        return Saliency(
            tdm=maps["tdm_saliency"].copy(),
            sdm=maps["sdm_saliency"].copy(),
            mask=maps["mask"].astype(np.bool_),
        )


class Timeline:
    """When the parts of a run begin, on the GPU's clock. marks: one event for each part."""

    def __init__(self, stream: Stream, marks: Sequence[Event]) -> None:
        self._stream, self._marks = stream, marks
        self._names: list[str] = []

    def mark(self, name: str) -> None:
        """Note that a part begins, unless it is under way."""
        if self._names[-1:] != [name]:
            self._stream.record(self._marks[len(self._names)])
            self._names.append(name)

    def spent_ms(self) -> dict[str, float]:
        """Milliseconds of every part but the last, once the stream is done."""
        marks = self._marks
        return {
            name: marks[part + 1].ms_since(marks[part])
            for part, name in enumerate(self._names[:-1])
        }
