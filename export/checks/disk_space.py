"""What a build is about to write, known before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engines.bundle.manifest import Dimensions, Precision
from engines.contract import Component
from engines.errors import FaceDiffuserError
from export.checkpoint.checkpoint import ModelSource
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from export.graph.modules import VaeDecoder

_ELEMENT_NBYTES = {Precision.FP16: 2, Precision.FP32: 4}
# Room for graphs, kernels, tokenizer and preview.
_BESIDE_WEIGHTS_NBYTES = 16 << 20


class DiskSpaceError(FaceDiffuserError):
    """The folder's disk has not the room for what the build would write."""


def require_disk_space(
    folder: Path,
    source: ModelSource,
    dimensions: Dimensions,
    precision: Precision,
    components: Iterable[Component],
) -> None:
    """Raise DiskSpaceError unless the graphs of these components fit beside what is there."""
    element_nbytes = _ELEMENT_NBYTES[precision]
    elements = sum(weight_elements(each, source.config(each), dimensions) for each in components)
    needed = elements * element_nbytes + _BESIDE_WEIGHTS_NBYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskSpaceError(
            f"the build writes {needed / 1e9:.2f} GB to {folder}, whose disk has "
            f"{free / 1e9:.2f} GB free; make room or name a folder elsewhere with --out"
        )


def weight_elements(component: Component, config: dict[str, Any], dimensions: Dimensions) -> int:
    """How many weights a component has, from its configuration alone."""
    with torch.device("meta"):
        match component:
            case Component.TEXT_ENCODER:
                module: nn.Module = text_encoder_from(config)
            case Component.IMAGE_ENCODER:
                module = image_encoder_from(config)
            case Component.FUSION_MLP:
                module = FusionMLP(dimensions.text_width, dimensions.subject_width)
            case Component.TDM_UNET | Component.SDM_UNET:
                module = unet_from(config)
            case Component.VAE_DECODER:
                module = VaeDecoder(vae_from(config))
    return sum(parameter.numel() for parameter in module.parameters())
