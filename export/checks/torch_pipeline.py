"""The released sampler in PyTorch, step by step: what the whole pipeline is compared with.

Written from the released formulas with diffusers' own schedulers; shares nothing with runtime.
One U-Net is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from engines.bundle.manifest import Dimensions
from engines.contract import Component
from engines.system.heap import trim_heap
from export.checks.library import library_answer
from export.graph.modules import library_module
from export.source import ModelSource

MARKER = "<|image|>"


@dataclass(frozen=True, kw_only=True)
class TorchRequest:
    """A request in the released script's terms; DDIM, released guidance rule.

    averages: fuse by addition, the ablation, where no pixel can change sides.
    """

    prompt: str
    references: Sequence[Path]
    latents: Tensor
    num_inference_steps: int
    guidance_scale: float
    start_merge_step: int
    final_step: int
    reference_resolution: int = 512
    averages: bool = False


class TorchPipeline:
    """Draws the latents of a request with torch modules computing in float32.

    rounded_to_half: give the weights the rounding that a half-precision bundle's weights have.
    """

    def __init__(
        self, source: ModelSource, dimensions: Dimensions, *, rounded_to_half: bool
    ) -> None:
        self._source = source
        self._dimensions = dimensions
        self._rounded_to_half = rounded_to_half
        self._current: tuple[Component, nn.Module] | None = None

    def final_latents(self, request: TorchRequest) -> Tensor:
        """Denoised latents [images, 4, h, w]."""
        null, text, augmented = self.prompt_embeds(request)
        scene, subject = (null, text), (text, augmented)
        scheduler = ddim_of(self._source)
        scheduler.set_timesteps(request.num_inference_steps)
        latents = request.latents
        for step, timestep in enumerate(scheduler.timesteps):
            if step <= request.start_merge_step:
                noise, _ = self._guided(Component.TDM_UNET, latents, timestep, scene, request)
            elif step <= request.final_step:
                tdm = self._guided(Component.TDM_UNET, latents, timestep, scene, request)
                sdm = self._guided(Component.SDM_UNET, latents, timestep, subject, request)
                noise = (tdm[0] + sdm[0]) / 2 if request.averages else fused(tdm, sdm)
            else:
                noise, _ = self._guided(Component.SDM_UNET, latents, timestep, subject, request)
            latents = scheduler.step(noise, timestep, latents).prev_sample
        return latents

    def _guided(
        self,
        component: Component,
        latents: Tensor,
        timestep: Tensor,
        passes: tuple[Tensor, Tensor],
        request: TorchRequest,
    ) -> tuple[Tensor, Tensor]:
        images = len(latents)
        rows = torch.cat([embeds.repeat(images, 1, 1) for embeds in passes])
        prediction = self._run(
            component, latents=latents, timestep=timestep.float().expand(images), prompt_embeds=rows
        )
        base, target = prediction.chunk(2)
        guidance = request.guidance_scale * (target - base)
        return base + guidance, guidance

    def prompt_embeds(self, request: TorchRequest) -> tuple[Tensor, Tensor, Tensor]:
        """Null, text and augmented prompt embeds, each [1, tokens, text_width]."""
        tokenizer: Any = CLIPTokenizer.from_pretrained(self._source.tokenizer_folder)
        window = self._dimensions.tokens
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        ids, marked = [bos], []
        *parts, tail = request.prompt.split(MARKER)
        for part in parts:
            ids += tokenizer(part, add_special_tokens=False).input_ids
            marked.append(len(ids) - 1)
        ids += [*tokenizer(tail, add_special_tokens=False).input_ids, eos]
        ids += [eos] * (window - len(ids))
        null = [bos, *[eos] * (window - 1)]
        embeds = self._run(Component.TEXT_ENCODER, input_ids=torch.tensor([null, ids]).int())
        subjects = self._run(
            Component.IMAGE_ENCODER,
            reference_pixels=torch.cat(
                [self._reference(path, request.reference_resolution) for path in request.references]
            ),
        )
        token_subject_embeds = torch.zeros(1, window, subjects.shape[-1])
        token_subject_embeds[0, marked] = subjects
        mask = torch.zeros(1, window, dtype=torch.bool)
        mask[0, marked] = True
        augmented = self._run(
            Component.FUSION_MLP,
            text_embeds=embeds[1:],
            token_subject_embeds=token_subject_embeds,
            subject_token_mask=mask,
        )
        return embeds[:1], embeds[1:], augmented

    def _reference(self, path: Path, resolution: int) -> Tensor:
        """A square RGB photo as reference pixels [1, 3, image_px, image_px]."""
        photo = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
        if photo.shape[-1] != photo.shape[-2]:
            raise ValueError(f"{path} is not square; the parity gate wants square photos")
        return self._reference_pixels(_resized(photo.float(), resolution).round() / 255)

    def _reference_pixels(self, photo: Tensor) -> Tensor:
        """A photo [1, 3, side, side] in [0, 1] as the image encoder takes it."""
        pixels = _resized(photo, self._dimensions.image_px)
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (self._dimensions.image_mean, self._dimensions.image_std)
        )
        return (pixels - mean) / std

    def _run(self, component: Component, **inputs: Tensor) -> Tensor:
        if self._current is None or self._current[0] is not component:
            self._current = None
            trim_heap()
            module = library_module(component, self._source)
            if self._rounded_to_half:
                for parameter in module.parameters():
                    parameter.data = parameter.data.half().float()
            self._current = component, module
        return library_answer(component, self._current[1], inputs)


def ddim_of(source: ModelSource) -> Any:
    """diffusers' DDIM scheduler of a checkpoint, as the released code configures it."""
    scheduler_class: Any = DDIMScheduler
    return scheduler_class.from_config(source.scheduler_config(), clip_sample=False)


def fused(tdm: tuple[Tensor, Tensor], sdm: tuple[Tensor, Tensor]) -> Tensor:
    """Saliency-adaptive noise fusion of two (guided noise, guidance) pairs, as released."""

    def saliency(guidance: Tensor) -> Tensor:
        size = guidance.shape[-2:]
        pooled = F.avg_pool2d(guidance.abs(), 4, stride=1, padding=1)
        smooth = F.interpolate(pooled, size, mode="bilinear", align_corners=False)
        return smooth.mean(1, keepdim=True).flatten(1).softmax(1).view(-1, 1, *size)

    return torch.where(saliency(sdm[1]) > saliency(tdm[1]), sdm[0], tdm[0])


def _resized(pixels: Tensor, side: int) -> Tensor:
    if pixels.shape[-1] == side:
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
