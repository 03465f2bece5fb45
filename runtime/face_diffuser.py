"""The embedded API: open a bundle, encode people, draw pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from engines.bundle.folder import TOKENIZER_PATH, Bundle
from engines.contract import LATENT_PX, Component
from engines.engine import Provider
from engines.errors import CancelledError, FaceDiffuserError, RequestError
from engines.guides import GuidanceRule
from runtime.backends import opened_backend
from runtime.clock import Clock
from runtime.conditioning import Conditioning, Photo
from runtime.inputs.identity import Identity
from runtime.inputs.prompt import Tokenizer
from runtime.method.guidance import Float32Array
from runtime.method.saliency import Fusion
from runtime.method.schedule import coefficient_table, timesteps_of
from runtime.request import Request
from runtime.result import Result, StepInfo
from runtime.sampler import sample
from runtime.trajectory import Backend, PassEmbeds, RequestKind, Trajectory

OnStepCallback = Callable[[StepInfo], bool | None]


class FaceDiffuser:
    """An open bundle. Not thread-safe: its buffers are reused from request to request."""

    def __init__(
        self, bundle: Bundle, backend: Backend, declined: Mapping[Provider, str] | None = None
    ) -> None:
        self._drawn_on = backend
        self._closed = False
        self.declined: Mapping[Provider, str] = dict(declined or {})
        manifest = bundle.manifest
        self._dimensions = manifest.dimensions
        self._noise_schedule = manifest.noise_schedule
        self._tokenizer = Tokenizer.open(bundle.path / TOKENIZER_PATH, manifest.dimensions.tokens)
        digest = bundle.component(Component.IMAGE_ENCODER).input_digest
        self._conditioning = Conditioning(backend, manifest.dimensions, digest)

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        provider: Provider | str | None = None,
        threads: int | None = None,
        low_memory: bool = False,
    ) -> FaceDiffuser:
        """Open a bundle on this machine.

        provider: "tensorrt", "onnxruntime-cuda", "onnxruntime-cpu" or "openvino" (its U-Nets in
        bfloat16 where the processor has it: faster, and less exact); None takes the first of them
        that can run here, and `declined` says why not those before it. A provider that is asked for
        and cannot run is an error. threads: processor cores to use, by default all. low_memory:
        keep one engine in memory at a time, at the price of opening it again when its turn comes
        (on the CPU, which it chooses). Raises the BundleError family, ProviderUnavailableError and
        DeviceMemoryError.
        """
        opened = Bundle.open(bundle)
        backend, declined = opened_backend(opened, provider, threads=threads, low_memory=low_memory)
        try:
            return cls(opened, backend, declined)
        except BaseException:
            backend.close()
            raise

    @property
    def provider(self) -> str:
        """Which backend computes."""
        return self._drawn_on.provider

    @property
    def native_px(self) -> int:
        """Height and width of a picture when a request does not say."""
        return self._dimensions.native_px

    def warm_up(
        self,
        *,
        height: int | None = None,
        width: int | None = None,
        num_images: int = 1,
        guidance_rule: GuidanceRule | str = GuidanceRule.PAPER,
        fusion: Fusion | str = Fusion.SALIENCY,
        saliency: bool = False,
    ) -> None:
        """Do now what the first request of this kind would wait for: memory, capture, measurement.

        The arguments are Request's. A GPU's backend does this for Request's own defaults when it
        opens; the CPU has nothing to warm up. Raises RequestError and DeviceMemoryError.
        """
        self._check_open()
        request = Request(
            prompt="", references=(), height=height, width=width, num_images=num_images,
            guidance_rule=GuidanceRule(guidance_rule), fusion=Fusion(fusion), saliency=saliency,
        )  # fmt: skip
        self._drawn_on.warm_up(self._kind(request))

    def encode_reference(
        self, image: Photo, *, reference_resolution: int = Request.reference_resolution
    ) -> Identity:
        """Encode a person from one photo, once for many requests.

        image: a path, a picture, or uint8 [h, w, 3]. reference_resolution: square side in px that
        the photo is brought to first (the released --object_resolution). Raises
        ReferenceImageError.
        """
        self._check_open()
        return self._conditioning.encoded(image, reference_resolution)

    def generate(self, request: Request, *, on_step: OnStepCallback | None = None) -> Result:
        """Draw the pictures of a request.

        on_step is called when a step is done; returning False there raises CancelledError. On a GPU
        nothing waits between the steps unless on_step is given. Raises the RequestError family for
        what cannot be drawn and NonFiniteError if an engine fails.
        """
        self._check_open()
        clock = Clock()
        latents, seeds = self._initial_latents(request)
        table = self._table(request)
        embeds = self._embeds(request, clock)
        trajectory = Trajectory(
            kind=self._kind(request),
            latents=latents,
            table=table,
            boundaries=request.boundaries(len(table)),
            embeds=embeds,
            guidance_scale=request.guidance_scale,
            output_type=request.output_type,
        )

        def after_step(info: StepInfo) -> None:
            if on_step is not None and on_step(info) is False:
                raise CancelledError(f"cancelled at step {info.step + 1} of {info.num_steps}")

        stepper = self._drawn_on.stepper(trajectory)
        drawn = sample(trajectory, stepper, None if on_step is None else after_step)
        return Result(
            images=drawn.images,
            seed=seeds[0],
            seeds=seeds,
            timings_ms=clock.timings_ms(drawn.timings_ms),
            provider=self.provider,
            request=request,
            saliency=drawn.saliency if request.saliency else None,
        )

    def close(self) -> None:
        """Close all engines; the object is of no use afterwards."""
        if not self._closed:
            self._closed = True
            self._drawn_on.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise FaceDiffuserError("this FaceDiffuser is closed; open the bundle again")

    def _kind(self, request: Request) -> RequestKind:
        height, width = self._latents_area(request)
        return RequestKind(
            images=request.num_images,
            height=height,
            width=width,
            guidance_rule=request.guidance_rule,
            fusion=request.fusion,
            saliency=request.saliency,
        )

    def _latents_area(self, request: Request) -> tuple[int, int]:
        if request.latents is not None:
            height, width = request.latents.shape[2:]
            return int(height), int(width)
        height, width = (
            (size or self.native_px) // LATENT_PX for size in (request.height, request.width)
        )
        return height, width

    def _initial_latents(self, request: Request) -> tuple[Float32Array, tuple[int, ...]]:
        """Noise of each image from its own seed, in NumPy's frozen RandomState stream."""
        seed = int.from_bytes(os.urandom(4)) if request.seed is None else request.seed
        seeds = tuple((seed + image) % 2**32 for image in range(request.num_images))
        channels = self._dimensions.latent_channels
        if request.latents is not None:
            latents = np.asarray(request.latents, np.float32)
            if latents.shape[1] != channels:
                raise RequestError(
                    f"latents have {latents.shape[1]} channels, this model has {channels}"
                )
            return latents, seeds
        shape = (channels, *self._latents_area(request))
        noise = [np.random.RandomState(each).standard_normal(shape) for each in seeds]
        return np.stack(noise).astype(np.float32), seeds

    def _table(self, request: Request) -> Float32Array:
        schedule, steps = self._noise_schedule, request.num_inference_steps
        first = timesteps_of(request.scheduler, schedule, steps)[0]
        if first >= schedule.num_train_timesteps:
            raise RequestError(
                f"num_inference_steps={steps} needs timestep {first}, the "
                f"model knows {schedule.num_train_timesteps}; take fewer steps"
            )
        return coefficient_table(request.scheduler, schedule, steps, request.guidance_scale)

    def _embeds(self, request: Request, clock: Clock) -> PassEmbeds:
        with clock.measure("text"):
            tokens = self._tokenizer.prompt_tokens(request.prompt, len(request.references))
            negative_ids = self._tokenizer.text_ids(request.negative_prompt)
        with clock.measure("references"):
            identities = [
                self._conditioning.identity(reference, request.reference_resolution)
                for reference in request.references
            ]
        with clock.measure("text"):
            return self._conditioning.pass_embeds(tokens, negative_ids, identities)
