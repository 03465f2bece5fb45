"""A peer that is a whole pipeline: OpenVINO GenAI's text-to-image, which is the scene stage alone.

This module imports no torch: a peer's memory is its own. benchmarks.peers.genai_export writes what
it opens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.memory import peak_rss_nbytes
from benchmarks.harness.workload import prompt
from benchmarks.peers.packages import peers_package
from benchmarks.peers.sessions import Float32Array
from benchmarks.peers.work import PEOPLE, TimedRun, Work, load_arrays, save_arrays
from runtime.inputs.prompt import MARKER


def genai_pipeline(
    *, work: Work, inputs: Path, folder: Path, threads: int
) -> Callable[..., TimedRun]:
    """GenAI's Text2ImagePipeline on the CPU in float32, reshaped to the work's size and compiled.

    It takes words and draws its own latents, so it gets the prompt without markers, which has the
    same token ids, and a generator that gives the inputs' latents. It always encodes the prompt and
    decodes a picture; timed is the sum of its own iteration durations: the latents' copies for each
    pass, the U-Net, guidance and the scheduler's step, which is what the others time. All of it but
    a few milliseconds is left when the encoder's and the decoder's durations are taken from the
    whole. Raises NotInstalledError.
    """
    genai = peers_package("openvino_genai")
    pipeline = genai.Text2ImagePipeline(folder)
    size: dict[str, Any] = {
        "num_images_per_prompt": work.images, "height": work.size_px, "width": work.size_px,
        "guidance_scale": work.guidance_scale,
    }  # fmt: skip
    pipeline.reshape(**size)
    pipeline.compile("CPU", INFERENCE_NUM_THREADS=threads, INFERENCE_PRECISION_HINT="f32")
    generator = _giving(load_arrays(inputs)["latents"])

    def run(result: str | None = None) -> TimedRun:
        kept: dict[str, Float32Array] = {}

        def keep(step: int, steps: int, latents: Any) -> bool:
            # After the scheduler's step, so that the last ones are what is decoded.
            kept["latents"] = np.array(latents.data, np.float32)
            return False

        pipeline.generate(
            prompt(PEOPLE).replace(MARKER, ""),
            negative_prompt="",
            num_inference_steps=work.steps,
            generator=generator,
            **size,
            **({} if result is None else {"callback": keep}),
        )
        durations_us = pipeline.get_performance_metrics().raw_metrics.iteration_durations
        if result is not None:
            save_arrays(result, kept)
        return TimedRun(
            ms=sum(durations_us) / 1e3, gpu_nbytes=None, peak_rss_nbytes=peak_rss_nbytes()
        )

    return run


def _giving(latents: Float32Array) -> Any:
    """A generator of GenAI's whose normal numbers are these latents."""
    generator = peers_package("openvino_genai").Generator
    tensor = peers_package("openvino").Tensor

    def randn_tensor(_: Any, shape: Any) -> Any:
        if tuple(shape) != latents.shape:
            raise ValueError(f"GenAI wants latents {tuple(shape)}, given are {latents.shape}")
        return tensor(latents.copy())

    return type("Given", (generator,), {"randn_tensor": randn_tensor})()
