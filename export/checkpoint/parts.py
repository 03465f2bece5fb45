"""Which tensors of a file are a component's, by the prefixes of the released layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from engines.contract import Component
from export.checkpoint import fusion_mlp
from export.checkpoint.layouts import is_change, layout_of, listed
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_config_from,
    text_encoder_from,
    unet_from,
    vae_from,
    vision_config_from,
)
from export.checkpoint.weight_files import CheckpointError, WeightFiles, read_json

TEXT_ENCODER, IMAGE_ENCODER, FUSION_MLP = "text_encoder.", "image_encoder.", "postfuse_module."
UNET, VAE = "unet.", "vae."
_PREFIXES = (TEXT_ENCODER, IMAGE_ENCODER, FUSION_MLP, UNET, VAE)
_NEEDED = {"tdm": (UNET,), "sdm": (TEXT_ENCODER, IMAGE_ENCODER, FUSION_MLP, UNET)}
# A tensor that every U-Net has: a checkpoint with it at the top level is a plain diffusers one.
UNET_MARK = "conv_in.weight"


@dataclass(frozen=True)
class Part:
    """Where one component comes from: names with a prefix in files, and the configurations."""

    weights: WeightFiles
    prefix: str
    configs: tuple[Path, ...]


def built(component: Component, part: Part) -> Callable[[], nn.Module]:
    """What makes a component's module, without its weights, from its configurations."""
    config, *others = map(read_json, part.configs)
    match component:
        case Component.TEXT_ENCODER:
            return partial(text_encoder_from, config)
        case Component.IMAGE_ENCODER:
            return partial(image_encoder_from, config)
        case Component.FUSION_MLP:
            widths = text_config_from(config), vision_config_from(others[0])
            return partial(fusion_mlp.FusionMLP, widths[0].hidden_size, widths[1].projection_dim)
        case Component.TDM_UNET | Component.SDM_UNET:
            return partial(unet_from, config)
        case Component.VAE_DECODER:
            return partial(vae_from, config)


def check_layout(role: str, weights: WeightFiles) -> None:
    """Raise CheckpointError where a file is not of the layout that its role, tdm or sdm, asks for.

    A TDM may be a plain U-Net of diffusers.
    """
    if role == "tdm" and UNET_MARK in weights.files:
        return
    unexpected = [
        name for name in weights.files if is_change(name) or not name.startswith(_PREFIXES)
    ]
    lacking = [prefix for prefix in _NEEDED[role] if not weights.names(prefix)]
    if unexpected or lacking:
        other = layout_of(unexpected)
        raise CheckpointError(
            f"{weights.path} is "
            + (f"{other}; " if other else "")
            + f"not a {role.upper()} checkpoint of the released layout: "
            f"lacking: {', '.join(f'{prefix}*' for prefix in lacking) or '(none)'}; "
            f"unexpected: {listed(unexpected)}; name another with --{role}"
        )
