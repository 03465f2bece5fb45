"""The embedded API: open a bundle, encode people, draw pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.contract import NOISE_PREDICTORS, Component
from engines.engine import HostPrecision, Provider
from engines.errors import CancelledError, FaceDiffuserError, NonFiniteError, RequestError
from engines.guides import GuidanceRule
from engines.hub.snapshot import local_bundle
from engines.tune.chosen import measured_call
from engines.tune.settings import HostSettings
from runtime.backends import opened_backend
from runtime.clock import Clock
from runtime.conditioning import Conditioning
from runtime.inputs.check import RequestCheck
from runtime.inputs.identity import Identity
from runtime.inputs.photo import Photo
from runtime.inputs.prompt import PromptTokens, TextTokens
from runtime.inputs.together import companions, drawn_of, form_of, joined, places, told_of
from runtime.method.saliency import Fusion
from runtime.pictures.previews import Previews
from runtime.preparation import drawing_badly, initial_latents, kind_of, planned_steps, unusual
from runtime.presets import Preset
from runtime.request import BY_PRESET, Request, check_reference_resolution
from runtime.result import Result, SaliencySteps, StepInfo
from runtime.sampler import sample
from runtime.trajectory import Backend, Drawn, PassEmbeds, Trajectory
from runtime.turns import CancelToken, StopOf, Turns

OnStepCallback = Callable[[StepInfo], Any]


class FaceDiffuser:
    """An open bundle, for any number of threads: their calls take turns, in no promised order.

    A call from on_step, within a drawing, is drawn at once on the CPU; on a GPU it is an error.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, declined: Mapping[Provider, str] | None = None
    ) -> None:
        self._drawn_on = backend
        self._turns = Turns(backend.close)
        self.declined: Mapping[Provider, str] = dict(declined or {})
        manifest = bundle.manifest
        self._bundle_digest = manifest.digest()
        self.quantization = bundle.quantization
        self._dimensions = manifest.dimensions
        self._previews = Previews(bundle=bundle.path, fitted=manifest.latent_preview)
        self._asked = RequestCheck.of(bundle)
        unets = {bundle.component(each).onnx_digest() for each in NOISE_PREDICTORS}
        self._one_unet = len(unets) == 1
        settings = backend.host_settings
        self.call_time = None if settings is None else measured_call(bundle, settings)
        digest = bundle.component(Component.IMAGE_ENCODER).input_digest
        self._conditioning = Conditioning(backend, manifest.dimensions, digest)

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        provider: Provider | str | None = None,
        precision: HostPrecision | str | None = None,
        threads: int | None = None,
        low_memory: bool = False,
        quantization: Quantization | str | None = None,
    ) -> FaceDiffuser:
        """Open a bundle on this machine.

        bundle: its folder, or `owner/name[@revision]`, a repository of the Hugging Face hub that
        has one, downloaded where huggingface_hub is installed (a commit as revision is always the
        same bundle). provider: "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu" or
        "openvino"; None takes the first that a GPU here runs, and `declined` says why not those
        before it; without one, whichever of the last two computes fastest. A provider that is asked
        for and cannot run is an error. precision: "float32" or "bfloat16" (OpenVINO's, where the
        processor has it; less exact) on a CPU; None takes the faster. threads: processor cores to
        use, from 1 and at most as many as there are; None takes the fastest number. What is fastest
        here was measured by `engines.tune` or at an earlier opening, or is now, where the U-Nets
        are large (for at most three minutes, and only where there is a choice); for small ones it
        is taken to be float32 on all cores. low_memory: keep only the engines in memory that
        compute, at the price of opening each again when its turn comes: one at a time, and on a GPU
        both U-Nets in the fusion stage. quantization: "int8" or "fp8" takes the U-Nets in 8 bits,
        of a bundle built with them. Raises RequestError, the BundleError family,
        ProviderUnavailableError and DeviceMemoryError.
        """
        opened = Bundle.open(local_bundle(bundle)).quantized(quantization)
        backend, declined = opened_backend(
            opened, provider, precision=precision, threads=threads, low_memory=low_memory
        )
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
    def host_settings(self) -> HostSettings | None:
        """What computes on the CPU: provider, precision of the U-Nets, threads; None on a GPU."""
        return self._drawn_on.host_settings

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
        preset: Preset | str = Preset.QUALITY,
        guidance_rule: GuidanceRule | str | None = None,
        guidance_every: int | None = None,
        guidance_until: float | None = None,
        fusion: Fusion | str = Fusion.SALIENCY,
        saliency: bool = False,
    ) -> None:
        """Do now what the first request of this kind would wait for: memory, capture, measurement.

        The arguments are Request's. A GPU's backend does this for Request's own defaults when it
        opens; the CPU has nothing to warm up. Raises RequestError and DeviceMemoryError.
        """
        request = Request(
            prompt="", references=(), height=height, width=width, num_images=num_images,
            preset=cast(Preset, preset),
            guidance_rule=BY_PRESET if guidance_rule is None else cast(GuidanceRule, guidance_rule),
            guidance_every=BY_PRESET if guidance_every is None else guidance_every,
            guidance_until=BY_PRESET if guidance_until is None else guidance_until,
            fusion=cast(Fusion, fusion), saliency=saliency,
        )  # fmt: skip
        with self._turn():
            self._drawn_on.warm_up(kind_of(request, self.native_px))

    def encode_reference(
        self, image: Photo, *, reference_resolution: int = Request.reference_resolution
    ) -> Identity:
        """Encode a person from one photo, once for many requests.

        image: a path, a picture, or uint8 [h, w, 3]. reference_resolution: square side in px that
        the photo is brought to first (the released --object_resolution). Raises
        ReferenceImageError.
        """
        check_reference_resolution(reference_resolution)
        with self._turn():
            return self._conditioning.encoded(image, reference_resolution)

    @overload
    def generate(
        self,
        request: Request,
        *,
        on_step: OnStepCallback | None = None,
        cancel: CancelToken | None = None,
    ) -> Result: ...
    @overload
    def generate(
        self,
        request: list[Request] | tuple[Request, ...],
        *,
        on_step: OnStepCallback | None = None,
        cancel: CancelToken | None = None,
    ) -> list[Result]: ...
    def generate(
        self,
        request: Request | list[Request] | tuple[Request, ...],
        *,
        on_step: OnStepCallback | None = None,
        cancel: CancelToken | None = None,
    ) -> Result | list[Result]:
        """Draw the pictures of a request, or of each of several (`Request.each` makes them).

        Of several, all words and numbers are checked before any is drawn, and the first error ends
        the call.

        on_step is called when a step is done; a falsy answer other than None raises CancelledError.
        cancel: a threading.Event, or whatever else has is_set(): looked at after each step and
        while the call waits for its turn; once it is set, CancelledError is raised. On a GPU
        nothing waits between the steps unless on_step or cancel is given. Raises the RequestError
        family for what cannot be drawn, NonFiniteError or ConstantOutputError if an engine fails.
        """
        if isinstance(request, list | tuple):
            for each in request:
                self.check(each)
            return [self.generate(each, on_step=on_step, cancel=cancel) for each in request]
        if not isinstance(request, Request):
            raise RequestError(
                f"generate takes a Request, got {type(request).__name__}; "
                "write generate(Request(prompt=..., references=[...]))"
            )
        with self._turn(cancel):
            return self._drawn([request], on_step, cancel)[0]

    def companions(self, requests: Sequence[Request]) -> tuple[int, ...]:
        """Which requests that wait are best drawn in one call with the first of them, by index.

        Those that `generate_together` takes with it, as many as `engines.tune` measured to cost
        less together than alone on this machine; the first alone where it measured nothing.
        """
        return companions(requests, self.call_time, self.native_px)

    def generate_together(
        self,
        requests: Sequence[Request],
        *,
        on_step: Callable[[int, StepInfo], Any] | None = None,
        cancel: CancelToken | None = None,
    ) -> list[Result]:
        """Draw several requests in one call of the engines a step; a result for each.

        They have all but words, people, seeds, preset and numbers of images in common. A picture is
        the one that `generate` draws, within what an engine's results depend on the number of rows
        (nothing on ONNX Runtime's CPU, as far as it was tried; rounding elsewhere). on_step also
        gets the request's index; a falsy answer other than None cancels the call, and so does the
        token. timings_ms: of the call. Raises RequestError for requests of different forms, and
        what `generate` does, whichever request is the reason.
        """
        if not requests or len({form_of(each, self.native_px) for each in requests}) > 1:
            raise RequestError(
                "requests that are drawn together have their size, steps, scheduler, guidance, "
                "fusion and output_type in common; draw others one after the other"
            )
        where = places(requests)

        def after_step(info: StepInfo) -> bool:
            parts = (told_of(info, place) for place in where)
            answers = [on_step(at, part) for at, part in enumerate(parts)] if on_step else []
            return all(answer is None or answer for answer in answers)

        with self._turn(cancel):
            return self._drawn(requests, after_step if on_step else None, cancel)

    def check(self, request: Request) -> None:
        """Raise now what `generate` would of the request's words and numbers; takes no turn.

        It is for who lets requests wait: markers that do not fit the references, a schedule that
        the model does not know. Photos and identities are looked at when they are drawn.
        """
        self._asked.check(request)

    async def generate_async(
        self,
        request: Request,
        *,
        on_step: OnStepCallback | None = None,
        cancel: CancelToken | None = None,
    ) -> Result:
        """The same for asyncio: drawn in a thread, so that the event loop goes on meanwhile.

        on_step is called in that thread. A task that is cancelled stops the drawing at its next
        step, and ends when that has happened.
        """
        import asyncio  # a tenth of this package's import, for those alone who wait in a loop

        stop = StopOf(cancel)
        drawing = asyncio.ensure_future(
            asyncio.to_thread(self.generate, request, on_step=on_step, cancel=stop)
        )
        try:
            return await asyncio.shield(drawing)
        except asyncio.CancelledError:
            stop.set()
            with suppress(FaceDiffuserError):
                await drawing
            raise

    def close(self) -> None:
        """Close all engines; the object is of no use afterwards.

        A drawing that is under way in another thread, or around this call, ends with an error after
        its step, and then the engines close.
        """
        self._turns.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _turn(self, cancel: CancelToken | None = None) -> Iterator[None]:
        with self._turns.turn(cancel) as depth:
            if depth > 1 and not self._drawn_on.nests:
                raise RequestError(
                    f"{self.provider} draws one picture at a time: a call from within on_step "
                    "would spoil the one it is called from; make it when that has ended"
                )
            with self._drawn_on.active():
                yield

    def _drawn(
        self,
        requests: Sequence[Request],
        on_step: OnStepCallback | None,
        cancel: CancelToken | None,
    ) -> list[Result]:
        """Results of requests of one form."""
        clock, request = Clock(), requests[0]
        starts = [initial_latents(each, self._dimensions) for each in requests]
        plan = planned_steps(request, self._asked.noise_schedule)
        with clock.measure("text"):
            tokens = [self._asked.tokens(each) for each in requests]
        embeds = [
            self._embeds(each, *texts, clock) for each, texts in zip(requests, tokens, strict=True)
        ]
        images = sum(each.num_images for each in requests)
        trajectory = Trajectory(
            kind=replace(kind_of(request, self.native_px), images=images),
            latents=np.concatenate([latents for latents, _ in starts]),
            table=plan.table,
            boundaries=plan.boundaries,
            guidance=plan.guidance,
            embeds=joined(embeds, requests),
            guidance_scale=request.guidance_scale,
            output_type=request.output_type,
            previews=self._previews,
        )

        def after_step(info: StepInfo) -> None:
            place = f"at step {info.step + 1} of {info.num_steps}"
            answer = None if on_step is None else on_step(info)
            # A NumPy bool is no bool: what is falsy counts.
            if answer is not None and not answer:
                raise CancelledError(f"cancelled {place}")
            self._turns.check(cancel, place)

        watched = on_step is not None or cancel is not None
        try:
            drawn = sample(
                trajectory,
                self._drawn_on.stepper(trajectory),
                after_step if watched else None,
                still_wanted=lambda: self._turns.check(cancel),
            )
        except NonFiniteError as error:
            if (blamed := next(filter(None, map(unusual, requests)), None)) is None:
                raise
            raise NonFiniteError(
                f"{error.reason.partition(';')[0]}; the request's {blamed} is the likely cause"
            ) from error
        timings_ms, evaluations = clock.timings_ms(drawn.timings_ms), trajectory.evaluations()
        return [
            self._result(each, seeds, texts, drawn_of(drawn, place), timings_ms, evaluations)
            for each, (_, seeds), texts, place in zip(
                requests, starts, tokens, places(requests), strict=True
            )
        ]

    def _result(
        self,
        request: Request,
        seeds: tuple[int, ...],
        texts: tuple[PromptTokens, TextTokens],
        drawn: Drawn,
        timings_ms: Mapping[str, float],
        evaluations: int,
    ) -> Result:
        tokens, negative = texts
        return Result(
            images=drawn.images,
            seed=seeds[0],
            seeds=seeds,
            timings_ms=dict(timings_ms),
            evaluations=evaluations,
            provider=self.provider,
            bundle=self._bundle_digest,
            quantization=self.quantization,
            precision=None if self.host_settings is None else self.host_settings.precision,
            request=request,
            unread=_unread(prompt=tokens.unread, negative_prompt=negative.unread),
            warnings=drawing_badly(request, one_unet=self._one_unet),
            saliency=SaliencySteps(drawn.saliency, drawn.images) if request.saliency else None,
        )

    def _embeds(
        self, request: Request, tokens: PromptTokens, negative: TextTokens, clock: Clock
    ) -> PassEmbeds:
        with clock.measure("references"):
            identities = [
                self._conditioning.identity(reference, request.reference_resolution)
                for reference in request.references
            ]
        with clock.measure("text"):
            return self._conditioning.pass_embeds(tokens, negative.ids, identities)


def _unread(**texts: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}
