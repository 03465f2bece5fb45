"""A checkpoint of one layer everywhere, with random weights: exported in seconds."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from engines.contract import Component
from engines.system.processes import Ended
from export.checkpoint import random_weights
from export.checkpoint.random_weights import RandomCheckpoint
from runtime.__main__ import main as draw_main
from tests.doubles.small_tokenizer import VOCABULARY
from tests.paths import GOLDEN

_ENCODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "projection_dim": 16,
}  # fmt: skip
_CONFIGS: dict[str, dict[str, Any]] = {
    "TEXT_CONFIG": _ENCODER | {"vocab_size": VOCABULARY},
    "VISION_CONFIG": _ENCODER | {"image_size": 32, "patch_size": 8},
    "UNET_CONFIG": {
        "sample_size": 8, "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",), "layers_per_block": 1, "norm_num_groups": 4,
        "cross_attention_dim": 16, "attention_head_dim": 2,
    },
    "VAE_CONFIG": {
        "sample_size": 64, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}  # fmt: skip


@dataclass(frozen=True)
class SmallCheckpoint(RandomCheckpoint):
    """Both U-Nets have the same weights, so that one of them is exported and shared."""

    def unet(self, component: Component) -> UNet2DConditionModel:
        return super().unet(Component.TDM_UNET)

    def digest(self, component: Component) -> str:
        same = component is Component.SDM_UNET
        return super().digest(Component.TDM_UNET if same else component)

    @property
    def tokenizer_folder(self) -> Path:
        return GOLDEN / "base" / "tokenizer"


@contextlib.contextmanager
def small_checkpoint() -> Iterator[SmallCheckpoint]:
    """The checkpoint, while the architecture of random weights is the small one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, changes in _CONFIGS.items():
            patch.setattr(random_weights, name, getattr(random_weights, name) | changes)
        yield SmallCheckpoint()


def draw_here(*words: object) -> Ended:
    """The drawing command, in this process."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = draw_main([str(word) for word in words])
    lines = said.getvalue().splitlines()
    return Ended(code=code, printed="", last_words=lines[-1] if lines else "")
