"""The host backend: engines on numpy arrays, and the formulas in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from PIL import Image

from engines.contract import LATENT_PX, Component
from engines.engine import Array
from engines.errors import NonFiniteError
from engines.guides import SDM_ALONE, SDM_GUIDES, TDM_GUIDE, Guide
from engines.tune.settings import HostSettings
from runtime.clock import Clock
from runtime.host.pool import EnginePool
from runtime.method.guidance import Float32Array, Guided, SubjectGuidance, added, guided
from runtime.method.saliency import Fusion, fused_by_addition, fused_by_saliency
from runtime.method.schedule import HISTORY_SLOTS, Column, Stage, updated_latents
from runtime.request import OutputType
from runtime.result import StepSaliency
from runtime.trajectory import Drawn, RequestKind, Trajectory, as_pictures


class HostBackend:
    """Runs everything at once, in the calling thread."""

    # Buffers are read before a step ends, so that another run may use them from then on.
    nests = True

    def __init__(self, engines: EnginePool) -> None:
        self._engines = engines

    @property
    def provider(self) -> str:
        return str(self._engines.settings.provider)

    @property
    def host_settings(self) -> HostSettings:
        return self._engines.settings

    def active(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()

    def run(
        self, component: Component, inputs: Mapping[str, Array], output_shape: tuple[int, ...]
    ) -> Array:
        return self._engines.run(component, inputs, output_shape)

    def warm_up(self, kind: RequestKind) -> None:
        """Nothing to do: buffers follow the requests."""

    def stepper(self, trajectory: Trajectory) -> HostStepper:
        return HostStepper(self._engines, trajectory)

    def close(self) -> None:
        self._engines.close()


class HostStepper:
    """One trajectory's latents and history in numpy."""

    # A step is done when it returns: taking one ahead would only delay what is told of it.
    ahead = 0

    def __init__(self, engines: EnginePool, trajectory: Trajectory) -> None:
        self._engines = engines
        self._trajectory = trajectory
        self._latents = trajectory.latents
        self._history = np.zeros((HISTORY_SLOTS, *self._latents.shape), np.float32)
        self._sdm_guide = SDM_GUIDES[trajectory.kind.guidance_rule]
        guides = (TDM_GUIDE, self._sdm_guide, SDM_ALONE)
        self._rows = {guide: self._prompt_rows(guide) for guide in guides}
        self._added = np.zeros_like(self._latents)
        self._saliency: list[StepSaliency] = []
        self._clock = Clock()

    def scene(self, step: int) -> None:
        with self._clock.measure(Stage.SCENE.value):
            self._move(step, self._tdm(step).noise)

    def fusion(self, step: int) -> None:
        with self._clock.measure(Stage.FUSION.value):
            tdm, sdm = self._tdm(step), self._sdm(step)
            if self._trajectory.kind.fusion is Fusion.ADDITION:
                noise = fused_by_addition(tdm, sdm)
            else:
                noise, saliency = fused_by_saliency(tdm, sdm)
                if self._trajectory.kind.keeps_maps:
                    timestep = self._trajectory.timestep(step)
                    self._saliency.append(StepSaliency(step, timestep, saliency))
            self._move(step, noise)

    def subject(self, step: int) -> None:
        with self._clock.measure(Stage.SUBJECT.value):
            match self._trajectory.guidance[step]:
                case SubjectGuidance.FULL:
                    noise = self._sdm(step).noise
                case SubjectGuidance.KEPT:
                    prediction = self._predicted(Component.SDM_UNET, self._sdm_guide, step)
                    guide, scale = self._sdm_guide, self._trajectory.guidance_scale
                    noise = guided(prediction, guide, scale).noise
                    self._added = added(noise, prediction, guide)
                case SubjectGuidance.CACHED:
                    noise = self._alone(step) + self._added
                case SubjectGuidance.OFF:
                    noise = self._alone(step)
            self._move(step, noise)

    def mark(self, step: int) -> None:
        """Nothing to keep."""

    def wait(self, step: int) -> None:
        """Steps are done when they return."""

    def latents_reader(self, step: int) -> Callable[[], Float32Array]:
        # A copy: a callback that writes into it does not change the picture.
        return self._latents.copy

    def finish(self) -> Drawn:
        output_type = self._trajectory.output_type
        if output_type is OutputType.LATENT:
            if not np.isfinite(self._latents).all():
                raise NonFiniteError("the latents after the last step have a NaN or an infinity")
            images: object = self._latents
        else:
            with self._clock.measure("decode"):
                images = self._pictures()
                if output_type is OutputType.PIL:
                    levels = [np.rint(each * 255).astype(np.uint8) for each in images]
                    images = [Image.fromarray(each) for each in levels]
        return Drawn(images=images, saliency=tuple(self._saliency), timings_ms=self._clock.spent_ms)

    def _tdm(self, step: int) -> Guided:
        return self._guided(Component.TDM_UNET, TDM_GUIDE, step)

    def _sdm(self, step: int) -> Guided:
        return self._guided(Component.SDM_UNET, self._sdm_guide, step)

    def _alone(self, step: int) -> Float32Array:
        """SDM's augmented pass: [images, 4, h, w] float32."""
        return self._guided(Component.SDM_UNET, SDM_ALONE, step).noise

    def _guided(self, component: Component, guide: Guide, step: int) -> Guided:
        prediction = self._predicted(component, guide, step)
        return guided(prediction, guide, self._trajectory.guidance_scale)

    def _predicted(self, component: Component, guide: Guide, step: int) -> Array:
        timestep, rows = self._trajectory.table[step, Column.TIMESTEP], self._rows[guide]
        return self._engines.run(
            component,
            {
                "latents": self._latents,
                "timestep": np.full(len(self._latents), timestep, np.float32),
                "prompt_embeds": rows,
            },
            (len(rows), *self._latents.shape[1:]),
            where=f" at step {step}, timestep {timestep:.0f}",
        )

    def _move(self, step: int, noise: Float32Array) -> None:
        row = self._trajectory.table[step]
        self._latents = updated_latents(self._latents, noise, self._history, row)

    def _prompt_rows(self, guide: Guide) -> Float32Array:
        return np.concatenate([self._trajectory.embeds[each] for each in guide.passes])

    def _pictures(self) -> Float32Array:
        """Decode one picture at a time: activations of the decoder are the largest of all."""
        height, width = (size * LATENT_PX for size in self._latents.shape[-2:])
        pictures = np.empty((len(self._latents), height, width, 3), np.float32)
        for picture, latent in zip(pictures, self._latents, strict=True):
            inputs = {"latents": latent[None]}
            pixels = self._engines.run(Component.VAE_DECODER, inputs, (1, 3, height, width))
            picture[...] = as_pictures(pixels)[0]
        return pictures
