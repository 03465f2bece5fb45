"""What a build is about to write, known before it starts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engines.bundle.manifest import Dimensions, Precision
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import FaceDiffuserError
from engines.plans.forecast import plans_nbytes
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from export.graph.modules import VaeDecoder
from export.source import ModelSource

_ELEMENT_NBYTES = {Precision.FP16: 2, Precision.FP32: 4}
# Room for graphs, kernels, tokenizer and preview.
_BESIDE_WEIGHTS_NBYTES = 16 << 20
# Of a U-Net's weights in half precision, what it takes beside them in 8 bits: some of its layers
# stay in half (0.56 counted over Stable Diffusion 1.5's).
_QUANTIZED_SHARE = 0.6


class DiskSpaceError(FaceDiffuserError):
    """The folder's disk has not the room for what the build would write."""


def weights_nbytes(
    source: ModelSource, dimensions: Dimensions, precision: Precision
) -> dict[Component, int]:
    """Size of each component's weights file, from configurations alone."""
    element_nbytes = _ELEMENT_NBYTES[precision]
    return {
        component: element_nbytes * weight_elements(component, source.config(component), dimensions)
        for component in Component
    }


def quantized_nbytes(weights: Mapping[Component, int], quantizations: int) -> int:
    """About what the U-Nets take in so many kinds of 8 bits, beside half precision."""
    unets = sum(weights[component] for component in NOISE_PREDICTORS)
    return int(quantizations * _QUANTIZED_SHARE * unets)


def told_size(
    weights: Mapping[Component, int],
    dimensions: Dimensions,
    profiles: Iterable[str] | None,
    quantizations: int = 0,
) -> str:
    """About the size of a bundle before it is written, in words.

    profiles: of its plans, if any. quantizations: kinds of 8 bits beside half precision.
    """
    beside = quantized_nbytes(weights, quantizations) + _BESIDE_WEIGHTS_NBYTES
    models = sum(weights.values()) + beside
    if profiles is None:
        return f"the bundle takes about {_in_words(models)}: ONNX models without plans"
    plans = plans_nbytes(weights, profiles, dimensions)
    return (
        f"the bundle takes about {_in_words(models + plans)}: {_in_words(models)} of ONNX models, "
        f"and plans of {_in_words(plans)} where they can be built here"
    )


def require_disk_space(
    folder: Path,
    weights: Mapping[Component, int],
    components: Iterable[Component],
    quantizations: int = 0,
) -> None:
    """Raise DiskSpaceError unless the graphs of these components fit beside what is there.

    quantizations: kinds of 8 bits that the U-Nets are still to be written in.

    The candidate that the last check draws from is made of links; where the file system has none,
    it is a copy of every component.
    """
    written, copied = list(components), [] if has_links(folder) else list(Component)
    needed = sum(weights[each] for each in (*written, *copied)) + _BESIDE_WEIGHTS_NBYTES
    needed += quantized_nbytes(weights, quantizations)
    _require(folder, needed)


def require_room_for_copies(bundle: Path, beside: Path) -> None:
    """Raise DiskSpaceError where a bundle is about to be copied, for want of links, and cannot be.

    bundle: what works already; beside: the folder that gets its files. What lies there is not
    copied again.
    """
    parent = beside.parent
    if has_links(parent):
        return
    files = (path for path in bundle.rglob("*") if path.is_file())
    copied = (path for path in files if not (beside / path.relative_to(bundle)).exists())
    _require(parent, sum(path.stat().st_size for path in copied))


def has_links(folder: Path) -> bool:
    """Whether a file in this folder can have a second name."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".links-") as trial:
        first = Path(trial) / "first"
        first.touch()
        try:
            (Path(trial) / "second").hardlink_to(first)
        except OSError:
            return False
    return True


def _require(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskSpaceError(
            f"the build writes {_in_words(needed)} to {folder}, whose disk has "
            f"{_in_words(free)} free; make room or name a folder elsewhere with --out"
        )


def _in_words(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"


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
