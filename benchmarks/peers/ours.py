"""This toolkit's contestant: a bundle through the runtime's own loop."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.harness.backends import TORCH, CallLog, opened_backend
from benchmarks.harness.worker import Answer, Message
from benchmarks.harness.workload import Workload
from benchmarks.peers.work import Arrays, Work, WorkKind, load_arrays, save_arrays
from engines.contract import NOISE_PREDICTORS
from engines.errors import CancelledError, ProviderUnavailableError
from runtime import FaceDiffuser, OutputType, Request, StepInfo


def bundle_backend(
    *, work: Mapping[str, Any], inputs: str, bundle: str, source: Mapping[str, Any], provider: str,
    threads: int,
) -> Answer:  # fmt: skip
    """Open the bundle and denoise what the inputs say; the prompt is the inputs' own."""
    job = Work.from_json(work)
    checkpoint = None
    if provider == TORCH:
        from benchmarks.harness.model_source import (
            SourceName,  # imports torch, which no other backend needs
        )

        checkpoint = SourceName(**source).opened()
    opened = opened_backend(bundle, provider, threads, checkpoint)
    backend = opened.__enter__()
    # A generator that nobody holds would be closed, and the bundle with it.
    atexit.register(opened.__exit__, None, None, None)
    request = Workload(steps=job.steps, images=job.images).request(
        height=None,
        width=None,
        latents=load_arrays(inputs)["latents"],
        start_merge_step=job.start_merge_step,
        final_step=job.final_step,
        guidance_scale=job.guidance_scale,
        output_type=OutputType.LATENT,
    )
    if job.kind is WorkKind.STEP and backend.log is None:
        raise ProviderUnavailableError(
            f"{provider} runs a step as one graph, so its predictions cannot be read; "
            "race on --work trajectory"
        )

    def answer(message: Message) -> dict[str, Any]:
        if job.kind is WorkKind.STEP and backend.log is not None:
            ms, arrays = one_step(backend.face_diffuser, request, backend.log)
        else:
            ms, arrays = all_steps(backend.face_diffuser, request)
        if message.get("result"):
            save_arrays(message["result"], arrays)
        return {"ms": ms, "gpu_nbytes": None}

    return answer


def one_step(face_diffuser: FaceDiffuser, request: Request, log: CallLog) -> tuple[float, Arrays]:
    """From the first U-Net call to the end of the step, where the request is cancelled."""
    ended: list[tuple[float, Any]] = []

    def stop(info: StepInfo) -> bool:
        ended.append((time.perf_counter(), info.latents.copy()))
        return False

    log.taken()
    with contextlib.suppress(CancelledError):
        face_diffuser.generate(request, on_step=stop)
    calls = [call for call in log.taken() if call.component in NOISE_PREDICTORS]
    (end, latents), start = ended[0], calls[0].start
    kept = {each.value: log.output(each) for each in NOISE_PREDICTORS}
    return (end - start) * 1e3, {"latents": latents, **kept}


def all_steps(face_diffuser: FaceDiffuser, request: Request) -> tuple[float, Arrays]:
    """The stages of a whole request, as the runtime itself times them."""
    result = face_diffuser.generate(request)
    stages = ("scene", "fusion", "subject")
    ms = sum(result.timings_ms.get(stage, 0.0) for stage in stages)
    return ms, {"latents": np.asarray(result.images)}
