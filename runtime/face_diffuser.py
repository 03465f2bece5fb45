"""The embedded API: open a bundle, encode people, draw pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from engines.bundle import TOKENIZER_PATH, Bundle
from engines.contract import LATENT_PX, Component
from engines.errors import CancelledError, FaceDiffuserError, ReferenceImageError, RequestError
from runtime.engine_pool import EnginePool
from runtime.guidance import SDM_GUIDES, TDM_GUIDE, Guide, Guided, Pass, guided
from runtime.identity import Identity
from runtime.prompt import PromptTokens, Tokenizer
from runtime.reference import load_reference, reference_pixels
from runtime.request import OutputType, Request
from runtime.result import Result, StepInfo
from runtime.saliency import Fusion, Saliency, fused_by_addition, fused_by_saliency
from runtime.sampler import GuidedModel, Sampler
from runtime.schedule import Stage, coefficient_table, timesteps_of

Float32Array = npt.NDArray[np.float32]
PassEmbeds = dict[Pass, Float32Array]
OnStepCallback = Callable[[StepInfo], bool | None]


class FaceDiffuser:
    """An open bundle. Not thread-safe: its buffers are reused from request to request."""

    def __init__(self, bundle: Bundle, engines: EnginePool) -> None:
        self._bundle = bundle
        self._engines = engines
        self._closed = False
        manifest = bundle.manifest
        self._dimensions = manifest.dimensions
        self._noise_schedule = manifest.noise_schedule
        self._tokenizer = Tokenizer.open(bundle.path / TOKENIZER_PATH, manifest.dimensions.tokens)

    @classmethod
    def open(
        cls, bundle: str | Path, *, threads: int | None = None, low_memory: bool = False
    ) -> FaceDiffuser:
        """Open a bundle on this machine.

        threads: processor cores to use, by default all. low_memory: keep one engine in memory at a
        time, at the price of opening it again when its turn comes. Raises the BundleError family
        and ProviderUnavailableError.
        """
        opened = Bundle.open(bundle)
        return cls(opened, EnginePool(opened, threads=threads, low_memory=low_memory))

    @property
    def provider(self) -> str:
        """Which backend computes."""
        return self._engines.provider

    @property
    def native_px(self) -> int:
        """Height and width of a picture when a request does not say."""
        return self._dimensions.native_px

    def encode_reference(
        self,
        image: str | Path | Image.Image | npt.NDArray[np.uint8],
        *,
        reference_resolution: int = Request.reference_resolution,
    ) -> Identity:
        """Encode a person from one photo, once for many requests.

        image: a path, a picture, or uint8 [h, w, 3]. reference_resolution: square side in px that
        the photo is brought to first (the released --object_resolution). Raises
        ReferenceImageError.
        """
        self._check_open()
        size = self._dimensions
        pixels = reference_pixels(
            load_reference(image),
            reference_resolution,
            size.image_px,
            size.image_mean,
            size.image_std,
        )
        embeds = self._engines.run(
            Component.IMAGE_ENCODER, {"reference_pixels": pixels[None]}, (1, size.subject_width)
        )
        return Identity(
            embeds=embeds[0].astype(np.float32),
            encoder=self._encoder_digest,
            reference_resolution=reference_resolution,
        )

    def generate(self, request: Request, *, on_step: OnStepCallback | None = None) -> Result:
        """Draw the pictures of a request.

        on_step is called after every step; returning False there raises CancelledError. Raises the
        RequestError family for what cannot be drawn and NonFiniteError if an engine fails.
        """
        self._check_open()
        clock = _Clock()
        latents, seeds = self._initial_latents(request)
        steps = timesteps_of(request.scheduler, self._noise_schedule, request.num_inference_steps)
        if steps[0] >= self._noise_schedule.num_train_timesteps:
            raise RequestError(
                f"num_inference_steps={request.num_inference_steps} needs timestep {steps[0]}, the "
                f"model knows {self._noise_schedule.num_train_timesteps}; take fewer steps"
            )
        with clock.measure("text"):
            tokens = self._tokenizer.prompt_tokens(request.prompt, len(request.references))
            negative_ids = self._tokenizer.text_ids(request.negative_prompt)
        with clock.measure("references"):
            identities = [self._identity(each, request) for each in request.references]
        with clock.measure("text"):
            embeds = self._pass_embeds(tokens, negative_ids, identities)

        def after_step(info: StepInfo) -> None:
            clock.end_step(info.stage)
            if on_step is not None and on_step(info) is False:
                raise CancelledError(f"cancelled at step {info.step + 1} of {info.num_steps}")
            clock.start_step()

        sampler = Sampler(
            table=coefficient_table(
                request.scheduler,
                self._noise_schedule,
                request.num_inference_steps,
                request.guidance_scale,
            ),
            boundaries=request.boundaries(len(steps)),
            tdm=self._guided_model(Component.TDM_UNET, TDM_GUIDE, embeds, request),
            sdm=self._guided_model(
                Component.SDM_UNET, SDM_GUIDES[request.guidance_rule], embeds, request
            ),
            fuse=_fuse_by_addition if request.fusion is Fusion.ADDITION else fused_by_saliency,
            on_step=after_step,
        )
        clock.start_step()
        latents = sampler.sample(latents)
        if request.output_type is OutputType.LATENT:
            images: Any = latents
        else:
            with clock.measure("decode"):
                images = self._pictures(latents, request.output_type)
        return Result(
            images=images,
            seed=seeds[0],
            seeds=seeds,
            timings_ms=clock.timings_ms(),
            provider=self.provider,
            request=request,
            saliency=tuple(sampler.saliency) if request.saliency else None,
        )

    def close(self) -> None:
        """Close all engines; the object is of no use afterwards."""
        if not self._closed:
            self._closed = True
            self._engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _encoder_digest(self) -> str:
        return self._bundle.component(Component.IMAGE_ENCODER).input_digest

    def _check_open(self) -> None:
        if self._closed:
            raise FaceDiffuserError("this FaceDiffuser is closed; open the bundle again")

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
        height, width = (
            (size or self.native_px) // LATENT_PX for size in (request.height, request.width)
        )
        noise = [np.random.RandomState(s).standard_normal((channels, height, width)) for s in seeds]
        return np.stack(noise).astype(np.float32), seeds

    def _identity(self, reference: Any, request: Request) -> Identity:
        if not isinstance(reference, Identity):
            return self.encode_reference(
                reference, reference_resolution=request.reference_resolution
            )
        if reference.encoder != self._encoder_digest:
            raise ReferenceImageError(
                "this identity was encoded by another image encoder than this bundle's; "
                "encode the photo again with FaceDiffuser.encode_reference"
            )
        return reference

    def _pass_embeds(
        self,
        tokens: PromptTokens,
        negative_ids: npt.NDArray[np.int32],
        identities: Sequence[Identity],
    ) -> PassEmbeds:
        """Prompt embeds of every guidance pass, each [tokens, text_width]."""
        size = self._dimensions
        ids = np.stack([negative_ids, tokens.text_ids, tokens.subject_ids])
        shape = (len(ids), size.tokens, size.text_width)
        encoded = self._engines.run(Component.TEXT_ENCODER, {"input_ids": ids}, shape)
        null, text, subject = encoded.astype(np.float32)

        token_subject_embeds = np.zeros((1, size.tokens, size.subject_width), np.float32)
        mask = np.zeros((1, size.tokens), np.bool_)
        for position, identity in zip(tokens.subject_positions, identities, strict=True):
            token_subject_embeds[0, position] = identity.embeds
            mask[0, position] = True
        augmented = self._engines.run(
            Component.FUSION_MLP,
            {
                "text_embeds": subject[None],
                "token_subject_embeds": token_subject_embeds,
                "subject_token_mask": mask,
            },
            (1, *shape[1:]),
        )
        return {
            Pass.NULL: null,
            Pass.TEXT: text,
            Pass.AUGMENTED: augmented[0].astype(np.float32),
        }

    def _guided_model(
        self, component: Component, guide: Guide, embeds: PassEmbeds, request: Request
    ) -> GuidedModel:
        images = request.num_images
        rows = np.concatenate([np.repeat(embeds[each][None], images, 0) for each in guide.passes])

        def predict(latents: Float32Array, timestep: float, step: int) -> Guided:
            noise_prediction = self._engines.run(
                component,
                {
                    "latents": latents,
                    "timestep": np.array([timestep], np.float32),
                    "prompt_embeds": rows,
                },
                (len(rows), *latents.shape[1:]),
                where=f" at step {step}, timestep {timestep:.0f}",
            )
            return guided(noise_prediction, guide, request.guidance_scale)

        return predict

    def _pictures(self, latents: Float32Array, output_type: OutputType) -> Any:
        """Decode one picture at a time: activations of the decoder are the largest of all."""
        height, width = (size * LATENT_PX for size in latents.shape[-2:])
        pictures = np.empty((len(latents), height, width, 3), np.float32)
        for picture, latent in zip(pictures, latents, strict=True):
            pixels = self._engines.run(
                Component.VAE_DECODER, {"latents": latent[None]}, (1, 3, height, width)
            )
            picture[...] = np.clip(pixels[0].transpose(1, 2, 0) * 0.5 + 0.5, 0, 1)
        if output_type is OutputType.NP:
            return pictures
        return [Image.fromarray(np.rint(each * 255).astype(np.uint8)) for each in pictures]


def _fuse_by_addition(tdm: Guided, sdm: Guided) -> tuple[Float32Array, Saliency | None]:
    return fused_by_addition(tdm, sdm), None


@dataclass
class _Clock:
    """Milliseconds by what they were spent on."""

    spent_ms: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    step_started: float = 0.0

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._add(name, start)

    def start_step(self) -> None:
        self.step_started = time.perf_counter()

    def end_step(self, stage: Stage) -> None:
        self._add(stage.value, self.step_started)

    def timings_ms(self) -> dict[str, float]:
        return self.spent_ms | {"total": (time.perf_counter() - self.started) * 1e3}

    def _add(self, name: str, start: float) -> None:
        self.spent_ms[name] = self.spent_ms.get(name, 0.0) + (time.perf_counter() - start) * 1e3
