"""What a model's configuration files ask for: followed as diffusers and transformers do, or refused
by name before any work."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from engines.bundle.manifest import NoiseSchedule
from engines.bundle.records import read
from export.checkpoint.weight_files import CheckpointError

_PLAIN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")

_COUNTS = ("layers_per_block", "num_hidden_layers", "transformer_layers_per_block")
_MOST_LAYERS = 1000

# Fields that change what a model computes, with the only values that are followed.
_UNET: dict[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DConditionModel",),
    "num_attention_heads": (None,),
    "quantization_config": (None,),
    "center_input_sample": (False, None),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False, None),
    "dual_cross_attention": (False, None),
    "cross_attention_norm": (None,),
    "attention_type": ("default", None),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "class_embeddings_concat": (False, None),
    "addition_embed_type": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional", None),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
}
_VAE: dict[str, tuple[Any, ...]] = {
    "_class_name": ("AutoencoderKL",),
    "quantization_config": (None,),
    "shift_factor": (None, 0, 0.0),
    "latents_mean": (None,),
    "latents_std": (None,),
    "use_post_quant_conv": (True, None),
    "in_channels": (3,),
    "out_channels": (3,),
}
_ENCODER: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "use_attention_mask": (False, None),
    "return_dict": (True, None),
    "use_return_dict": (True, None),
    "num_channels": (3,),
}
_ENCODER_TYPES = {
    "text_config": ("clip_text_model", "clip", None),
    "vision_config": ("clip_vision_model", "clip", None),
}
_SCHEDULER: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("epsilon",),
    "trained_betas": (None,),
    "timestep_spacing": ("leading",),
    "rescale_betas_zero_snr": (False, None),
    "thresholding": (False, None),
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
}


def check_unet(config: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointError for a U-Net that the export would not compute as diffusers does."""
    full = _with_defaults(UNet2DConditionModel, config)
    refuse(full, _UNET, where)
    _check_counts(full, where)
    for name in ("down_block_types", "up_block_types"):
        if not isinstance(full[name], list | tuple):
            raise CheckpointError(f"{where} says {name} {full[name]!r:.80}; expected a list")
        if other := [each for each in full[name] if each not in _PLAIN_BLOCKS]:
            raise CheckpointError(
                f"{where} says {name} {other[0]!r}; supported are {', '.join(_PLAIN_BLOCKS)}"
            )
    if full["norm_num_groups"] is None:
        raise CheckpointError(f"{where} says norm_num_groups null, which is not supported")
    if full["in_channels"] != full["out_channels"]:
        raise CheckpointError(
            f"{where} says in_channels {full['in_channels']} and out_channels "
            f"{full['out_channels']}; a model of text and people has as many (no inpainting model)"
        )
    for name in ("sample_size", "cross_attention_dim"):
        if not isinstance(full[name], int) or isinstance(full[name], bool):
            raise CheckpointError(
                f"{where} says {name} {full[name]!r:.80}; expected one whole number"
            )


def check_vae(config: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointError for a VAE that the export would not compute as diffusers does."""
    full = _with_defaults(AutoencoderKL, config)
    refuse(full, _VAE, where)
    _check_counts(full, where)
    scale = full["scaling_factor"]
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise CheckpointError(
            f"{where} says scaling_factor {scale!r:.80}; expected a number above zero"
        )


def check_encoder(config: Mapping[str, Any], part: str, where: Path) -> None:
    """Raise CheckpointError for an encoder that the export would not compute as transformers does.

    part: text_config or vision_config, as a configuration of both calls it.
    """
    inner = config.get(part, config)
    for each in (config, inner) if isinstance(inner, Mapping) else (config,):
        refuse(each, _ENCODER | {"model_type": _ENCODER_TYPES[part]}, where)
        _check_counts(each, where)


def unet_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """A U-Net's configuration with diffusers' defaults for what it leaves out."""
    return _with_defaults(UNet2DConditionModel, config)


def vae_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """A VAE's configuration with diffusers' defaults for what it leaves out."""
    return _with_defaults(AutoencoderKL, config)


def noise_schedule(config: Mapping[str, Any], where: Path) -> NoiseSchedule:
    """The noise levels, with the library's defaults for what the file leaves out.

    Raises CheckpointError for what DDIM and PNDM here would not follow.
    """
    kind = config.get("_class_name", "DDIMScheduler")
    if not isinstance(kind, str) or "Flow" in kind:
        raise CheckpointError(f"{where} says {kind!r:.80}; models of flows are not supported")
    cls = getattr(diffusers, kind, None)
    if not (isinstance(cls, type) and issubclass(cls, SchedulerMixin)):
        raise CheckpointError(f"{where} says _class_name {kind!r:.80}, which diffusers has not")
    is_pndm = kind == "PNDMScheduler"
    # What a class has no field for is what DDIM makes of its configuration.
    full = _with_defaults(DDIMScheduler, {}) | _with_defaults(cls, config)
    refuse(full, _SCHEDULER, where)
    if not is_pndm and "clip_sample" in _with_defaults(cls, config):
        refuse(full, {"clip_sample": (False, None)}, where)
    elif config.get("clip_sample") not in (None, False):
        raise CheckpointError(f"{where} says clip_sample {config['clip_sample']!r}; expected false")
    if is_pndm:
        refuse(full, {"skip_prk_steps": (True,)}, where)
    names = NoiseSchedule.__dataclass_fields__
    try:
        return read(NoiseSchedule, {name: full[name] for name in names})
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"{where} is not supported: {error}") from error


def _check_counts(config: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointError for more layers than any model has: the libraries would make them."""
    for name in _COUNTS:
        said = config.get(name)
        counts = said if isinstance(said, list | tuple) else [said]
        if any(isinstance(count, int) and count > _MOST_LAYERS for count in counts):
            raise CheckpointError(
                f"{where} says {name} {said!r:.80}; expected {_MOST_LAYERS} at most"
            )


def _with_defaults(cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as the library reads it: its own defaults for what is left out."""
    parameters = inspect.signature(inspect.unwrap(cls.__init__)).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return defaults | dict(config)


def refuse(config: Mapping[str, Any], followed: Mapping[str, Iterable[Any]], where: Path) -> None:
    """Raise CheckpointError for the first field that has none of the values that are followed."""
    for name, values in followed.items():
        if name in config and not any(_same(config[name], value) for value in values):
            only = " or ".join(json.dumps(value) for value in values if value is not None) or "null"
            raise CheckpointError(
                f"{where} says {name} {config[name]!r:.80}, which is not supported; only {only} is"
            )


def _same(found: Any, value: Any) -> bool:
    return type(found) is type(value) and found == value
