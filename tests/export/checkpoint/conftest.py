"""A tiny model in the released layout, as files that a test may change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.checkpoint.checkpoint import Sources
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from tests.paths import GOLDEN

WIDTH = 16
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "vocab_size": 2050,
}
VISION = {
    "projection_dim": 12,
    "vision_config": {
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 224,
        "patch_size": 112,
    },
}
UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
VAE = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}
SDM_MODULES: dict[str, Callable[[], nn.Module]] = {
    "text_encoder": lambda: text_encoder_from(TEXT),
    "image_encoder": lambda: image_encoder_from(VISION),
    "postfuse_module": lambda: FusionMLP(WIDTH, 12),
    "unet": lambda: unet_from(UNET),
}

Tensors = dict[str, Tensor]


def tensors_of(modules: dict[str, Callable[[], nn.Module]]) -> Tensors:
    named: Tensors = {}
    for prefix, build in modules.items():
        named |= {f"{prefix}.{name}": tensor for name, tensor in build().state_dict().items()}
    return named


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def save_bin(tensors: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)


@pytest.fixture(scope="session")
def sdm() -> Tensors:
    torch.manual_seed(1)
    positions = torch.arange(77)[None]
    return tensors_of(SDM_MODULES) | {"text_encoder.embeddings.position_ids": positions}


@pytest.fixture(scope="session")
def tdm() -> Tensors:
    torch.manual_seed(2)
    return tensors_of({"unet": SDM_MODULES["unet"]})


@pytest.fixture
def sources(tmp_path: Path, sdm: Tensors, tdm: Tensors) -> Sources:
    """A tiny model in the released layout, with .bin files."""
    torch.manual_seed(3)
    base = tmp_path / "base"
    write_json(base / "unet" / "config.json", UNET)
    write_json(base / "text_encoder" / "config.json", TEXT)
    write_json(base / "vae" / "config.json", VAE)
    shutil.copytree(GOLDEN / "base" / "scheduler", base / "scheduler")
    shutil.copytree(GOLDEN / "base" / "tokenizer", base / "tokenizer")
    write_json(tmp_path / "clip" / "config.json", VISION)
    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value."}
    vae: Tensors = {}
    for name, tensor in vae_from(VAE).state_dict().items():
        for new, old in (old_names | {".to_out.0.": ".proj_attn."}).items():
            name = name.replace(new, old)
        vae[name] = tensor
    save_bin(vae, base / "vae" / "diffusion_pytorch_model.bin")
    save_bin(sdm, tmp_path / "SDM" / "pytorch_model.bin")
    save_bin(tdm, tmp_path / "TDM" / "pytorch_model.bin")
    return Sources(
        base=str(base),
        tdm=str(tmp_path / "TDM"),
        sdm=str(tmp_path / "SDM"),
        image_encoder=str(tmp_path / "clip"),
    )


def changed(sources: Sources, **parts: Path) -> Sources:
    fields = {name: str(path) for name, path in parts.items()}
    known = {"base": sources.base, "tdm": sources.tdm, "sdm": sources.sdm}
    known["image_encoder"] = sources.image_encoder
    return Sources(**(known | fields))
