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

from export.checkpoint.tensor_files import refusing
from export.checkpoint.weight_files import CheckpointError, WeightFiles

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config", CLIPTextConfig, CLIPVisionConfig)

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
    """The text part of a CLIP configuration; CheckpointError where it is none."""
    return _read(CLIPTextConfig, config.get("text_config", config), "text")


def image_encoder_from(config: dict[str, Any]) -> CLIPVisionModelWithProjection:
    """CLIP's vision model, from a vision configuration or one that contains it."""
    return CLIPVisionModelWithProjection(vision_config_from(config))


def vision_config_from(config: dict[str, Any]) -> CLIPVisionConfig:
    """The vision part of a CLIP configuration with the width they project to.

    Raises CheckpointError where it is none.
    """
    fields = config.get("vision_config", config)
    if "projection_dim" in config and isinstance(fields, dict):
        fields = fields | {"projection_dim": config["projection_dim"]}
    return _read(CLIPVisionConfig, fields, "vision")


def _read(cls: type[Config], fields: Any, part: str) -> Config:
    with refusing(
        lambda error: f"the {part} encoder's configuration is none of CLIP's: {error!s:.400}"
    ):
        config: Config = cls.from_dict(dict(fields))
    return config


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
    copy at most. Raises CheckpointError, as `fitted` does and for what is not finite.
    """
    module, names = fitted(build, config, weights, prefix)
    state: dict[str, Tensor] = {}
    broken = []
    for stored, tensor in weights.tensors(names):
        state[names[stored]] = tensor.to(torch.float32).contiguous()
        if not torch.isfinite(state[names[stored]]).all():
            broken.append(f"not finite: {stored}")
    if broken:
        raise _misfit(weights, config, broken)
    module.load_state_dict(state, strict=True, assign=True)
    _fill_position_ids(module)
    return module.eval().requires_grad_(requires_grad=False)


def fitted(
    build: Callable[[], Module], config: Path, weights: WeightFiles, prefix: str
) -> tuple[Module, dict[str, str]]:
    """The module without weights, and for each tensor's name in the files its name in the module.

    Reads names and shapes alone. Raises CheckpointError, which lists missing, unexpected and
    mis-shaped tensors and those of no floating-point numbers.
    """
    with (
        refusing(lambda error: f"{config} describes no model that can be built: {error!s:.400}"),
        torch.device("meta"),
    ):
        module = build()

    expected = module.state_dict()
    names = {
        _current_name(name.removeprefix(prefix), expected): name
        for name in weights.names(prefix)
        if not name.endswith(_POSITION_IDS)
    }
    problems = [f"missing: {prefix}{name}" for name in expected if name not in names]
    problems += [f"unexpected: {names[name]}" for name in names if name not in expected]
    stored_names = {stored: name for name, stored in names.items() if name in expected}
    for stored, shape, wrong in weights.shapes(stored_names):
        wanted = list(expected[stored_names[stored]].shape)
        if shape != wanted:
            problems.append(f"shape {shape} instead of {wanted}: {stored}")
        elif wrong:
            problems.append(f"type {wrong} instead of floating-point numbers: {stored}")
    if problems:
        raise _misfit(weights, config, problems)
    return module, stored_names


def _misfit(weights: WeightFiles, config: Path, problems: list[str]) -> CheckpointError:
    more = len(problems) - _SHOWN
    return CheckpointError(
        f"{weights.path} does not hold the weights that {config} describes:\n  "
        + "\n  ".join(problem[:120] for problem in problems[:_SHOWN])
        + (f"\n  and {more} more" if more > 0 else "")
    )


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
