"""This toolkit's contestant: a bundle through the runtime's own loop."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.peer_work import Arrays, Work, WorkKind, load_arrays, save_arrays
from benchmarks.roads import opened_road
from benchmarks.worker import Answer, Message
from benchmarks.workload import Workload
from engines.contract import NOISE_PREDICTORS
from engines.errors import CancelledError
from runtime import OutputType, StepInfo


def bundle_road(
    *, work: Mapping[str, Any], inputs: str, bundle: str, provider: str, threads: int
) -> Answer:
    """Open the bundle and denoise what the inputs say; the prompt is the inputs' own."""
    job = Work.from_json(work)
    opened = opened_road(bundle, provider, threads)
    road = opened.__enter__()
    # A generator that nobody holds would be closed, and the bundle with it.
    atexit.register(opened.__exit__, None, None, None)
    face_diffuser, log = road.face_diffuser, road.log
    assert log is not None
    request = Workload(steps=job.steps, images=job.images).request(
        height=None,
        width=None,
        latents=load_arrays(inputs)["latents"],
        start_merge_step=job.start_merge_step,
        final_step=job.final_step,
        guidance_scale=job.guidance_scale,
        output_type=OutputType.LATENT,
    )

    def one_step() -> tuple[float, Arrays]:
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

    def all_steps() -> tuple[float, Arrays]:
        result = face_diffuser.generate(request)
        stages = ("scene", "fusion", "subject")
        ms = sum(result.timings_ms.get(stage, 0.0) for stage in stages)
        return ms, {"latents": result.images}

    run = one_step if job.kind is WorkKind.STEP else all_steps

    def answer(message: Message) -> dict[str, Any]:
        ms, arrays = run()
        if message.get("result"):
            save_arrays(message["result"], {k: np.asarray(v) for k, v in arrays.items()})
        return {"ms": ms, "gpu_nbytes": None}

    return answer
