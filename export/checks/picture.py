"""The checks and the picture of a whole bundle, drawn as its users will draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from engines import commands
from engines.bundle.manifest import Manifest, Precision
from engines.contract import LATENT_PX
from engines.errors import FaceDiffuserError
from engines.gate import PIPELINE_BOUNDS, relative_l2
from engines.processes import run_module
from export import shipped
from export.checkpoint.checkpoint import ModelSource
from export.checks.parity import ParityError
from export.checks.torch_pipeline import TorchPipeline, TorchRequest

PREVIEW_NAME = "preview.png"
# What the runtime is asked for beside prompt, references and seed, as its command line takes it.
PREVIEW = ("--num-inference-steps", "20")
# Random weights draw noise however large and long: at full size a step takes seconds and gigabytes.
NOISE_PREVIEW = ("--num-inference-steps", "3", "--height", "256", "--width", "256")

_PROMPT = "a man <|image|> and a woman <|image|> in a park"
_REFERENCES = (shipped.HIM, shipped.HER)


class BuildError(FaceDiffuserError):
    """A build cannot go on."""


def pipeline_parity(bundle: Path, source: ModelSource, manifest: Manifest) -> dict[str, float]:
    """Draw the same latents with PyTorch and with the runtime, one step of each stage.

    Raises ParityError if they drift apart. The runtime runs in a process of its own, as users run
    it, holding one engine at a time.
    """
    size = manifest.dimensions
    side = 2 * 64 // LATENT_PX
    noise = np.random.RandomState(3407).standard_normal((1, size.latent_channels, side, side))
    latents = noise.astype(np.float32)
    steps, start_merge_step, final_step = 3, 0, 1
    pipeline = TorchPipeline(source, size, rounded_to_half=manifest.precision is Precision.FP16)
    expected = pipeline.final_latents(
        TorchRequest(
            prompt=_PROMPT,
            references=_REFERENCES,
            latents=torch.from_numpy(latents),
            num_inference_steps=steps,
            guidance_scale=5.0,
            start_merge_step=start_merge_step,
            final_step=final_step,
        )
    ).numpy()
    del pipeline
    initial, final = bundle / "initial.npy", bundle / "final.npy"
    np.save(initial, latents)
    _run_runtime(
        bundle,
        *("--latents", str(initial), "--out", str(final), "--num-inference-steps", str(steps)),
        *("--start-merge-step", str(start_merge_step), "--final-step", str(final_step)),
        *("--guidance-rule", "released"),
    )
    error = relative_l2(np.load(final), expected)
    bound = PIPELINE_BOUNDS[manifest.precision]
    if not error <= bound:
        raise ParityError(
            f"the whole pipeline is {error:.2e} from PyTorch's latents (relative L2), the bound is "
            f"{bound:.0e}; every component passed alone, so suspect prompt, references or schedule"
        )
    return {"relative_l2": error, "bound": bound, "steps": steps}


def draw_preview(bundle: Path, options: Sequence[str]) -> None:
    """Draw PREVIEW_NAME into the bundle; raises BuildError. options: PREVIEW or the like."""
    _run_runtime(bundle, "--seed", "7", "--out", str(bundle / PREVIEW_NAME), *options)


def _run_runtime(bundle: Path, *arguments: str) -> None:
    """Draw through `python -m runtime` in a process of its own: export never imports runtime."""
    references = [word for photo in _REFERENCES for word in ("--reference", photo)]
    ended = run_module(
        commands.PREFIX + commands.DRAW,
        *(_PROMPT, "--bundle", bundle, *references, "--low-memory", *arguments),
    )
    if ended.code:
        reason = ended.last_words or "no reason given"
        raise BuildError(f"the runtime cannot draw from this bundle: {reason}")
