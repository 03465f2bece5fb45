"""Every field of every configuration is computed as the library computes it, or refused by name."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from engines.contract import Component
from export.checkpoint.checkpoint import Checkpoint, CheckpointError, Sources
from export.checkpoint.configurations import check_unet, check_vae
from export.checkpoint.modules_from_weights import unet_from, vae_from
from export.checks.library import library_answer
from export.graph.modules import run, wrapped
from tests.export.checkpoint.conftest import TEXT, UNET, VAE, VISION, WIDTH, write_json

WHERE = Path("config.json")
# Of each field of diffusers' constructor a value that is not its default's.
UNET_FIELDS: dict[str, Any] = {
    "sample_size": [8, 8], "in_channels": 5, "out_channels": 3, "center_input_sample": True,
    "flip_sin_to_cos": False, "freq_shift": 1, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "CrossAttnUpBlock2D"],
    "only_cross_attention": True, "block_out_channels": [16, 16], "layers_per_block": 2,
    "downsample_padding": 0, "mid_block_scale_factor": 2.0, "dropout": 0.5, "act_fn": "gelu",
    "norm_num_groups": None, "norm_eps": 0.1, "cross_attention_dim": [16, 16],
    "transformer_layers_per_block": 2, "reverse_transformer_layers_per_block": [2, 2],
    "encoder_hid_dim": 16, "encoder_hid_dim_type": "text_proj", "attention_head_dim": 4,
    "num_attention_heads": 2, "dual_cross_attention": True, "use_linear_projection": True,
    "class_embed_type": "timestep", "addition_embed_type": "text", "addition_time_embed_dim": 8,
    "num_class_embeds": 4, "upcast_attention": True, "resnet_time_scale_shift": "scale_shift",
    "resnet_skip_time_act": True, "resnet_out_scale_factor": 2.0,
    "time_embedding_type": "fourier", "time_embedding_dim": 40, "time_embedding_act_fn": "silu",
    "timestep_post_act": "silu", "time_cond_proj_dim": 8, "conv_in_kernel": 1,
    "conv_out_kernel": 1, "projection_class_embeddings_input_dim": 8, "attention_type": "gated",
    "class_embeddings_concat": True, "mid_block_only_cross_attention": True,
    "cross_attention_norm": "layer_norm", "addition_embed_type_num_heads": 2,
}  # fmt: skip
VAE_FIELDS: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "down_block_types": ["AttnDownEncoderBlock2D"] * 2,
    "up_block_types": ["AttnUpDecoderBlock2D"] * 2, "block_out_channels": [16, 8],
    "layers_per_block": 2, "act_fn": "gelu", "latent_channels": 5, "norm_num_groups": 2,
    "sample_size": 64, "scaling_factor": 0.5, "shift_factor": 0.1, "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4, "force_upcast": False, "use_quant_conv": False,
    "use_post_quant_conv": False, "mid_block_add_attention": False,
}  # fmt: skip


def fields_of(cls: Any) -> set[str]:
    return set(inspect.signature(inspect.unwrap(cls.__init__)).parameters) - {"self", "kwargs"}


def test_all_fields_of_the_installed_diffusers_are_tried() -> None:
    assert fields_of(UNet2DConditionModel) == set(UNET_FIELDS)
    assert fields_of(AutoencoderKL) == set(VAE_FIELDS)


def assert_as_library(component: Component, library: nn.Module, inputs: dict[str, Tensor]) -> None:
    expected = library_answer(component, library, inputs)
    found = run(wrapped(component, library), inputs)
    # Float32 sums in another order: 1e-6 seen at scale 1.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("field", UNET_FIELDS)
def test_a_field_of_the_unet_is_computed_as_diffusers_does_or_refused(field: str) -> None:
    config: dict[str, Any] = UNET | {field: UNET_FIELDS[field]}
    try:
        check_unet(config, WHERE)
    except CheckpointError as error:
        assert field in str(error) or field == "out_channels"
        return
    torch.manual_seed(1)
    inputs = {
        "latents": torch.randn(2, config.get("in_channels", 4), 8, 8),
        "timestep": torch.tensor([501.0, 21.0]),
        "prompt_embeds": torch.randn(4, 77, WIDTH),
    }
    assert_as_library(Component.TDM_UNET, unet_from(config).eval(), inputs)


@pytest.mark.parametrize("field", VAE_FIELDS)
def test_a_field_of_the_vae_is_computed_as_diffusers_does_or_refused(field: str) -> None:
    config: dict[str, Any] = VAE | {field: VAE_FIELDS[field]}
    try:
        check_vae(config, WHERE)
    except CheckpointError as error:
        assert field in str(error)
        return
    torch.manual_seed(1)
    latents = torch.randn(2, config.get("latent_channels", 4), 8, 8)
    assert_as_library(Component.VAE_DECODER, vae_from(config).eval(), {"latents": latents})


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("unet/config.json", "_class_name", "UNet3DConditionModel"),
        ("unet/config.json", "num_attention_heads", 2),
        ("unet/config.json", "down_block_types", None),
        ("unet/config.json", "quantization_config", {"quant_method": "bitsandbytes"}),
        ("unet/config.json", "layers_per_block", "two"),
        ("unet/config.json", "layers_per_block", 2**31),
        ("unet/config.json", "transformer_layers_per_block", [1, 10**30]),
        ("text_encoder/config.json", "num_hidden_layers", 2**31),
        ("vae/config.json", "_class_name", "AutoencoderTiny"),
        ("vae/config.json", "scaling_factor", 0),
        ("vae/config.json", "scaling_factor", "0.18215"),
        ("vae/config.json", "scaling_factor", None),
        ("vae/config.json", "block_out_channels", 8),
        ("text_encoder/config.json", "model_type", "t5"),
        ("text_encoder/config.json", "use_attention_mask", True),
        ("text_encoder/config.json", "return_dict", False),
        ("text_encoder/config.json", "vocab_size", "many"),
        ("text_encoder/config.json", "hidden_act", "no_such_act"),
        ("scheduler/scheduler_config.json", "_class_name", "NoSuchScheduler"),
        ("scheduler/scheduler_config.json", "_class_name", "FlowMatchEulerDiscreteScheduler"),
        ("tokenizer/tokenizer_config.json", "padding_side", "left"),
        ("tokenizer/tokenizer_config.json", "truncation_side", "left"),
        ("tokenizer/tokenizer_config.json", "tokenizer_class", "T5Tokenizer"),
    ],
)
def test_what_is_not_followed_is_refused_before_any_work(
    part: str, name: str, value: object, sources: Sources
) -> None:
    path = Path(sources.base) / part
    write_json(path, json.loads(path.read_text()) | {name: value})
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(sources)
    if value not in ("two", 8, "no_such_act", "many", "FlowMatchEulerDiscreteScheduler"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("model_type", "siglip_vision_model"), ("return_dict", False)]
)
def test_the_image_encoder_is_checked_too(name: str, value: object, sources: Sources) -> None:
    path = Path(sources.image_encoder) / "config.json"
    for config in (VISION | {name: value}, {**VISION, "vision_config": {name: value}}):
        write_json(path, config)
        with pytest.raises(CheckpointError, match=name):
            Checkpoint.open(sources)


def test_a_scheduler_takes_the_defaults_of_its_own_class(sources: Sources) -> None:
    path = Path(sources.base) / "scheduler" / "scheduler_config.json"
    left_out = ("timestep_spacing", "skip_prk_steps")
    config = {n: v for n, v in json.loads(path.read_text()).items() if n not in left_out}
    write_json(path, config | {"_class_name": "EulerDiscreteScheduler"})
    with pytest.raises(CheckpointError, match="timestep_spacing 'linspace'"):
        Checkpoint.open(sources)
    leading = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
    write_json(path, config | leading)
    Checkpoint.open(sources)


def test_what_does_not_fit_is_told_before_a_weight_is_read(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.checkpoint.weight_files.WeightFiles.tensors", None)
    Checkpoint.open(sources)
    write_json(Path(sources.base) / "text_encoder" / "config.json", TEXT | {"num_hidden_layers": 2})
    with pytest.raises(CheckpointError, match=r"missing: text_encoder\.encoder\.layers\.1"):
        Checkpoint.open(sources)
