"""Stable Diffusion's original single files: the U-Net in them, by diffusers' own conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from export.checkpoint.configurations import unet_sizes
from export.checkpoint.layouts import listed
from export.checkpoint.tensor_files import refusing
from export.checkpoint.weight_files import CheckpointError, WeightFiles

_UNET = "model.diffusion_model."
# With all parts, as the training had it; the U-Net alone, as other programs save it.
_PREFIXES = (_UNET, "diffusion_model.", "")
_FIRST = "input_blocks.0.0.weight"


def with_diffusers_names(weights: WeightFiles, unet_config: Mapping[str, Any]) -> WeightFiles:
    """The file's U-Net with diffusers' names, where it has the original ones; else the file as is.

    The conversion is one of names alone, so it moves names and reads no weights. Raises
    CheckpointError for a U-Net of which diffusers would leave something out.
    """
    prefix = next((each for each in _PREFIXES if each + _FIRST in weights.files), None)
    if prefix is None:
        return weights
    original = {_UNET + name.removeprefix(prefix): name for name in weights.names(prefix)}
    convert: Any = convert_ldm_unet_checkpoint
    # diffusers looks up names that need not be there.
    with refusing(
        lambda error: (
            f"{weights.path} is a single-file checkpoint that diffusers cannot convert: "
            f"{type(error).__name__}: {error!s:.300}"
        )
    ):
        converted: dict[str, str] = convert(original, unet_sizes(unet_config))
    if left := set(original.values()) - set(converted.values()):
        raise CheckpointError(
            f"{weights.path} is a single-file checkpoint with parts that a U-Net of Stable "
            f"Diffusion 1.5 has not: {listed(sorted(left))}"
        )
    return WeightFiles(
        weights.path, {name: weights.files[stored] for name, stored in converted.items()}
    )
