"""Ours: a bundle through the runtime's own loop."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.backends import TORCH, CallLog, opened_backend
from benchmarks.harness.memory import peak_rss_nbytes
from benchmarks.harness.options import SourceName
from benchmarks.harness.workload import Workload
from benchmarks.peers.work import Arrays, TimedRun, Work, WorkKind, load_arrays, save_arrays
from engines.contract import NOISE_PREDICTORS
from engines.engine import HostPrecision
from engines.errors import CancelledError, ProviderUnavailableError
from runtime import FaceDiffuser, OutputType, Request, StepInfo


def bundle_backend(
    *,
    work: Work,
    inputs: Path,
    bundle: Path,
    source: SourceName,
    provider: str,
    threads: int,
    precision: HostPrecision | None = None,
    quantization: str | None = None,
) -> Callable[..., TimedRun]:
    """Open the bundle and denoise what the inputs say; the prompt is the inputs' own.

    precision, quantization: of the U-Nets, as FaceDiffuser.open takes them.
    """
    # Opening a checkpoint imports torch, which no other backend needs.
    checkpoint = source.opened() if provider == TORCH else None
    opened = opened_backend(
        bundle, provider, threads, checkpoint, precision=precision, quantization=quantization
    )
    backend = opened.__enter__()
    # Without a reference to it the generator would be closed, and the bundle with it.
    atexit.register(opened.__exit__, None, None, None)
    request = Workload(steps=work.steps, images=work.images).request(
        height=None,
        width=None,
        latents=load_arrays(inputs)["latents"],
        start_merge_step=work.start_merge_step,
        final_step=work.final_step,
        guidance_scale=work.guidance_scale,
        output_type=OutputType.LATENT,
    )
    if work.kind is WorkKind.STEP and backend.log is None:
        raise ProviderUnavailableError(
            f"{provider} runs a step as one graph, so its predictions cannot be read; "
            "compare on --work trajectory"
        )

    def run(result: str | None = None) -> TimedRun:
        if work.kind is WorkKind.STEP and backend.log is not None:
            ms, arrays = one_step(backend.face_diffuser, request, backend.log)
        else:
            ms, arrays = all_steps(backend.face_diffuser, request)
        if result is not None:
            save_arrays(result, arrays)
        return TimedRun(ms=ms, gpu_nbytes=None, peak_rss_nbytes=peak_rss_nbytes())

    return run


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
