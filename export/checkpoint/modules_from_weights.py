"""Torch modules from a configuration and named tensors, strictly.

Here, once, the names of the released checkpoints become those of today's libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from export.checkpoint.weight_files import CheckpointError, WeightFiles

Module = TypeVar("Module", bound=nn.Module)

# Tensors that a message names at most.
_SHOWN = 12

# A buffer of older transformers, which newer ones compute.
_POSITION_IDS = "position_ids"

# Levels that some versions of transformers put into a name and others leave out.
_OPTIONAL_LEVELS = ("text_model.", "vision_model.")

# The VAE's attention before diffusers 0.17.
_OLD_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def text_encoder_from(config: dict[str, Any]) -> CLIPTextModel:
    """CLIP's text model, from a text configuration or one that contains it."""
    return CLIPTextModel(text_config_from(config))


def text_config_from(config: dict[str, Any]) -> CLIPTextConfig:
    """The text part of a CLIP configuration."""
    text: CLIPTextConfig = CLIPTextConfig.from_dict(dict(config.get("text_config", config)))
    return text


def image_encoder_from(config: dict[str, Any]) -> CLIPVisionModelWithProjection:
    """CLIP's vision model, from a vision configuration or one that contains it."""
    return CLIPVisionModelWithProjection(vision_config_from(config))


def vision_config_from(config: dict[str, Any]) -> CLIPVisionConfig:
    """The vision part of a CLIP configuration with the width they project to."""
    fields = dict(config.get("vision_config", config))
    if "projection_dim" in config:
        fields["projection_dim"] = config["projection_dim"]
    vision: CLIPVisionConfig = CLIPVisionConfig.from_dict(fields)
    return vision


def unet_from(config: dict[str, Any]) -> UNet2DConditionModel:
    """A U-Net of this architecture."""
    unet: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    return unet


def vae_from(config: dict[str, Any]) -> AutoencoderKL:
    """A VAE of this architecture."""
    vae: AutoencoderKL = AutoencoderKL.from_config(config)
    return vae


def module_from_weights(
    build: Callable[[], Module], config: Path, weights: WeightFiles, prefix: str
) -> Module:
    """The module with the tensors whose names start with prefix: float32, eval mode, no gradients.

    Built without memory of its own, it takes each tensor as it comes, so that there is one float32
    copy at most. Raises CheckpointError, which lists missing, unexpected and mis-shaped
    tensors and those that is no finite floating-point number.
    """
    try:
        with torch.device("meta"):
            module = build()
    except Exception as error:  # the libraries check a configuration in many ways
        raise CheckpointError(f"{config} describes no model that can be built: {error}") from error

    expected = module.state_dict()
    names = {
        _current_name(name.removeprefix(prefix), expected): name
        for name in weights.names(prefix)
        if not name.endswith(_POSITION_IDS)
    }
    problems = [f"missing: {prefix}{name}" for name in expected if name not in names]
    problems += [f"unexpected: {names[name]}" for name in names if name not in expected]
    stored_names = {stored: name for name, stored in names.items() if name in expected}
    state: dict[str, Tensor] = {}
    for stored, tensor in weights.tensors(stored_names):
        name = stored_names[stored]
        problem = _problem(tensor, expected[name])
        if problem:
            problems.append(f"{problem}: {stored}")
        elif not problems:
            state[name] = tensor.to(torch.float32).contiguous()
            if not torch.isfinite(state[name]).all():
                problems.append(f"not finite: {stored}")
    if problems:
        raise CheckpointError(
            f"{weights.path} does not hold the weights that {config} describes:\n  "
            + "\n  ".join(problem[:200] for problem in problems[:_SHOWN])
            + (f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
        )
    module.load_state_dict(state, strict=True, assign=True)
    _fill_position_ids(module)
    return module.eval().requires_grad_(requires_grad=False)


def _current_name(name: str, expected: dict[str, Tensor]) -> str:
    """The name that the installed libraries use for a stored one."""
    for old, new in _OLD_ATTENTION.items():
        if old in name and name.replace(old, new) in expected:
            return name.replace(old, new)
    for level in _OPTIONAL_LEVELS:
        for candidate in (name.removeprefix(level), level + name):
            if name not in expected and candidate in expected:
                return candidate
    return name


def _problem(stored: Tensor, expected: Tensor) -> str | None:
    if stored.shape != expected.shape:
        return f"shape {list(stored.shape)} instead of {list(expected.shape)}"
    if not stored.is_floating_point() or stored.layout is not torch.strided:
        return f"type {stored.dtype} {stored.layout} instead of floating-point numbers"
    return None


def _fill_position_ids(module: nn.Module) -> None:
    """Gives the buffers that no checkpoint holds their values: position ids count from zero."""
    for name, buffer in list(module.named_buffers()):
        if not buffer.is_meta:
            continue
        owner, _, leaf = name.rpartition(".")
        if leaf != _POSITION_IDS:
            raise CheckpointError(f"buffer {name} has no value: this model is not supported")
        ids = torch.arange(buffer.shape[-1]).expand(buffer.shape).contiguous()
        module.get_submodule(owner).register_buffer(leaf, ids, persistent=False)
