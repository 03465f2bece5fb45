"""The released formulas in plain PyTorch: what the kernels are measured against.

Half precision throughout, one operation at a time, as the released pipeline runs them between two
U-Net calls: guidance, saliency, per-pixel choice, DDIM step, the doubled input of the next call.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def guided(prediction: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """[2 * images, 4, h, w] -> (guided noise, guidance), each [images, 4, h, w]."""
    base, target = prediction.chunk(2)
    guidance = scale * (target - base)
    return base + guidance, guidance


def saliency(guidance: Tensor) -> Tensor:
    """Softmax over the pixels of the smoothed magnitude: [images, 4, h, w] -> [images, h * w]."""
    magnitude = functional.avg_pool2d(guidance.abs(), kernel_size=4, stride=1, padding=1)
    smooth = functional.interpolate(magnitude, size=guidance.shape[-2:], mode="bilinear")
    return smooth.mean(dim=1).flatten(1).softmax(dim=1)


def fused(tdm_prediction: Tensor, sdm_prediction: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(fused noise, mask): per pixel the guided noise of the more salient model."""
    tdm, tdm_guidance = guided(tdm_prediction, scale)
    sdm, sdm_guidance = guided(sdm_prediction, scale)
    stacked = torch.stack([saliency(tdm_guidance), saliency(sdm_guidance)])
    mask = stacked.argmax(dim=0).view(tdm.shape[0], 1, *tdm.shape[-2:])
    index = mask.expand_as(tdm).unsqueeze(0)
    return torch.stack([tdm, sdm]).gather(0, index).squeeze(0), mask.squeeze(1)


def ddim_step(latents: Tensor, noise: Tensor, alpha: float, alpha_previous: float) -> Tensor:
    """DDIM without added noise, through the predicted clean latents."""
    clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
    moved: Tensor = alpha_previous**0.5 * clean + (1 - alpha_previous) ** 0.5 * noise
    return moved


def fusion_step(
    tdm: Tensor, sdm: Tensor, latents: Tensor, scale: float, alpha: float, alpha_previous: float
) -> tuple[Tensor, Tensor]:
    """(new latents, the next U-Net call's doubled input) of the fusion stage."""
    noise, _ = fused(tdm, sdm, scale)
    new = ddim_step(latents, noise, alpha, alpha_previous)
    return new, torch.cat([new, new])


def guided_step(
    prediction: Tensor, latents: Tensor, scale: float, alpha: float, alpha_previous: float
) -> tuple[Tensor, Tensor]:
    """(new latents, the next U-Net call's doubled input) of the other stages."""
    noise, _ = guided(prediction, scale)
    new = ddim_step(latents, noise, alpha, alpha_previous)
    return new, torch.cat([new, new])


def pixels(decoded: Tensor) -> Tensor:
    """[images, 3, h, w] in [-1, 1] -> [images, h, w, 3] uint8."""
    unit = (decoded / 2 + 0.5).clamp(0, 1).float()
    return (unit.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
