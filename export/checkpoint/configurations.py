"""What a model's configuration files ask for: followed as diffusers and transformers do, or refused
by name before any work."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from transformers import CLIPTokenizer

from engines.bundle.manifest import NoiseSchedule
from engines.bundle.records import read
from export.checkpoint.weight_files import CheckpointError, read_json

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_PLAIN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")

# Fields that change what a model computes, with the only values that are followed.
_UNET: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False, None),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False, None),
    "dual_cross_attention": (False, None),
    "cross_attention_norm": (None,),
    "attention_type": ("default", None),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
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
    "shift_factor": (None, 0, 0.0),
    "latents_mean": (None,),
    "latents_std": (None,),
    "use_post_quant_conv": (True, None),
    "in_channels": (3,),
    "out_channels": (3,),
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
    _refuse(full, _UNET, where)
    for name in ("down_block_types", "up_block_types"):
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
    _refuse(_with_defaults(AutoencoderKL, config), _VAE, where)


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
    is_pndm = kind == "PNDMScheduler"
    full = _with_defaults(PNDMScheduler if is_pndm else DDIMScheduler, config)
    _refuse(full, _SCHEDULER, where)
    if not is_pndm:
        _refuse(full, {"clip_sample": (False, None)}, where)
    elif config.get("clip_sample") not in (None, False):
        raise CheckpointError(f"{where} says clip_sample {config['clip_sample']!r}; expected false")
    if is_pndm:
        _refuse(full, {"skip_prk_steps": (True,)}, where)
    names = NoiseSchedule.__dataclass_fields__
    try:
        return read(NoiseSchedule, {name: full[name] for name in names})
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"{where} is not supported: {error}") from error


def tokenizer_of(folder: Path, vocabulary: int, tokens: int) -> Any:
    """CLIP's tokenizer from a folder, found whole and to fit the text encoder.

    vocabulary, tokens: how many ids the text encoder embeds, and at how many places. Raises
    CheckpointError.
    """
    _check_tokenizer_files(folder)
    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
        backend = tokenizer.backend_tokenizer
    except Exception as error:  # transformers and tokenizers check files in many ways
        raise CheckpointError(f"{folder} holds no whole CLIP tokenizer: {error!s:.300}") from error
    special = {name: str(getattr(tokenizer, f"{name}_token")) for name in ("bos", "eos", "pad")}
    for name, wanted in (("bos", _BOS), ("eos", _EOS), ("pad", _EOS)):
        if special[name] != wanted:
            raise CheckpointError(
                f"{folder} says {name}_token {special[name]!r}; only {wanted!r} is supported, as "
                "Stable Diffusion 1.5 has it"
            )
    largest = max(backend.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary:
        raise CheckpointError(
            f"{folder} gives ids up to {largest}, the text encoder embeds {vocabulary} "
            "(vocab_size); they do not belong together, check --base and --sdm"
        )
    if tokenizer.model_max_length < tokens:
        raise CheckpointError(
            f"{folder} says model_max_length {tokenizer.model_max_length}, the text encoder has "
            f"{tokens} places (max_position_embeddings); a shorter window is not supported"
        )
    return tokenizer


def _check_tokenizer_files(folder: Path) -> None:
    """Raise CheckpointError where a file of the tokenizer is not what its name says."""
    whole, vocabulary, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if not whole.is_file() and not vocabulary.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json or vocab.json")
    if not whole.is_file() and not merges.is_file():
        raise CheckpointError(f"{merges} is missing; vocab.json says nothing without it")
    for path in folder.glob("*.json"):
        read_json(path)
    if merges.is_file():
        lines = merges.read_text(encoding="utf-8", errors="replace").splitlines()
        if not any(len(line.split()) == 2 for line in lines if not line.startswith("#version")):
            raise CheckpointError(f"{merges} holds no merge; copy or download it again")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            _check_special_tokens(read_json(folder / name), folder / name)


def _check_special_tokens(config: Mapping[str, Any], where: Path) -> None:
    for name, wanted in (("bos_token", _BOS), ("eos_token", _EOS), ("pad_token", _EOS)):
        said = config.get(name)
        content = said.get("content") if isinstance(said, Mapping) else said
        if content not in (None, wanted):
            raise CheckpointError(
                f"{where} says {name} {json.dumps(content):.80}; only {wanted!r} is supported"
            )


def _with_defaults(cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as the library reads it: its own defaults for what is left out."""
    parameters = inspect.signature(inspect.unwrap(cls.__init__)).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return defaults | dict(config)


def _refuse(config: Mapping[str, Any], followed: Mapping[str, Iterable[Any]], where: Path) -> None:
    for name, values in followed.items():
        if name in config and not any(_same(config[name], value) for value in values):
            only = " or ".join(json.dumps(value) for value in values if value is not None) or "null"
            raise CheckpointError(
                f"{where} says {name} {config[name]!r:.80}, which is not supported; only {only} is"
            )


def _same(found: Any, value: Any) -> bool:
    return type(found) is type(value) and found == value
