"""Peers in PyTorch: the released algorithm, eager and compiled, and diffusers' own pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.memory import peak_rss_nbytes
from benchmarks.harness.options import SourceName
from benchmarks.peers.work import (
    SDM_PASSES,
    TDM_PASSES,
    Arrays,
    TimedRun,
    Work,
    load_arrays,
    rows_of,
    save_arrays,
)
from benchmarks.schema.peers import Device
from engines.contract import Component
from engines.errors import ProviderUnavailableError
from export.checks.torch_pipeline import ddim_of, fused
from export.source import ModelSource
from runtime.method.schedule import Stage

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def released(
    *, work: Work, inputs: Path, source: SourceName, device: Device, dtype: str,
    compiled: bool, threads: int,
) -> Callable[..., TimedRun]:  # fmt: skip
    """The released algorithm as its authors run it: latents repeated for each guidance pass.

    Latents stay float32 between the steps, which costs nothing and favors the half precisions.
    """
    where = _device(device, threads)
    loop = ReleasedLoop(work, source.opened(), where, DTYPES[dtype])
    if compiled:
        loop.unets = {name: torch.compile(unet) for name, unet in loop.unets.items()}
    loop.take(load_arrays(inputs))
    return _timed(loop.run, where)


class ReleasedLoop:
    """Both U-Nets, the formulas and diffusers' scheduler, all on one device."""

    def __init__(
        self, work: Work, source: ModelSource, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.work, self._device, self._dtype = work, device, dtype
        self.unets: dict[Component, Any] = {
            component: _moved(source.unet(component), device, dtype) for component in work.unets()
        }
        self._scheduler = ddim_of(source)
        self._scheduler.set_timesteps(work.steps, device=device)
        self._rows: dict[Component, Tensor] = {}

    def take(self, inputs: Arrays) -> None:
        """Initial latents and prompt embeds, moved to the device."""
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        self._latents = tensors["latents"].to(self._device)
        for component, passes in (
            (Component.TDM_UNET, TDM_PASSES),
            (Component.SDM_UNET, SDM_PASSES),
        ):
            rows = torch.stack(rows_of(passes, tensors, self.work.images))
            self._rows[component] = rows.to(self._device, self._dtype)

    def run(self) -> dict[str, Tensor]:
        """Final latents, and both models' predictions of the last step."""
        latents, kept = self._latents, {}
        for step in range(self.work.count):
            timestep = self._scheduler.timesteps[step]
            stage = self.work.stage(step)
            answers = {}
            for component, passes in (
                (Component.TDM_UNET, stage is not Stage.SUBJECT),
                (Component.SDM_UNET, stage is not Stage.SCENE),
            ):
                if passes:
                    kept[component.value] = self._predicted(component, latents, timestep)
                    answers[component] = self._guided(kept[component.value])
            noise = (
                fused(*answers.values()) if len(answers) == 2 else next(iter(answers.values()))[0]
            )
            latents = self._scheduler.step(noise, timestep, latents).prev_sample
        return {"latents": latents, **kept}

    def _predicted(self, component: Component, latents: Tensor, timestep: Tensor) -> Tensor:
        rows = self._rows[component]
        repeated = torch.cat([latents.to(self._dtype)] * (len(rows) // len(latents)))
        prediction: Tensor = self.unets[component](
            repeated, timestep, encoder_hidden_states=rows, return_dict=False
        )[0]
        return prediction.float()

    def _guided(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """(guided noise, guidance); three passes are null, text and augmented (Eq. 2)."""
        passes = prediction.view(-1, self.work.images, *prediction.shape[1:])
        guidance = self.work.guidance_scale * (passes[-1] - passes[-2])
        return passes[0] + guidance, guidance


def diffusers_pipeline(
    *, work: Work, inputs: Path, source: SourceName, device: Device, dtype: str, threads: int
) -> Callable[..., TimedRun]:
    """diffusers' StableDiffusionPipeline with TDM's weights: the scene stage is all it can do."""
    from diffusers import StableDiffusionPipeline  # takes seconds to import

    where = _device(device, threads)
    opened = source.opened()
    pipeline_class: Any = StableDiffusionPipeline
    pipeline = pipeline_class(
        vae=opened.vae_decoder(),
        text_encoder=opened.text_encoder(),
        tokenizer=None,
        unet=opened.unet(Component.TDM_UNET),
        scheduler=ddim_of(opened),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(where, DTYPES[dtype])
    pipeline.set_progress_bar_config(disable=True)
    arrays = {
        name: torch.from_numpy(array).to(where, DTYPES[dtype])
        for name, array in load_arrays(inputs).items()
    }

    def run() -> dict[str, Tensor]:
        images = pipeline(
            prompt_embeds=arrays["text"][None],
            negative_prompt_embeds=arrays["null"][None],
            latents=arrays["latents"],
            num_inference_steps=work.steps,
            guidance_scale=work.guidance_scale,
            output_type="latent",
        ).images
        return {"latents": images.float()}

    return _timed(run, where)


def _timed(run: Callable[[], dict[str, Tensor]], device: torch.device) -> Callable[..., TimedRun]:
    """Run when asked, timed to the end of the device's work; save the result where one is named."""

    def timed(result: str | None = None) -> TimedRun:
        with torch.inference_mode():
            _wait(device)
            start = time.perf_counter()
            found = run()
            _wait(device)
            ms = (time.perf_counter() - start) * 1e3
        if result is not None:
            save_arrays(result, {k: v.cpu().numpy() for k, v in found.items()})
        memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
        return TimedRun(ms=ms, gpu_nbytes=memory, peak_rss_nbytes=peak_rss_nbytes())

    return timed


def _device(name: Device, threads: int) -> torch.device:
    torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise ProviderUnavailableError("this PyTorch finds no CUDA GPU")
    # float32 is the reference: its convolutions must not round to TF32, which is cuDNN's default.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def _moved(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    return module.to(device, dtype)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
