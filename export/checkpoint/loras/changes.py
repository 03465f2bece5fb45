"""A LoRA's file: read, brought to peft's names, and checked against the U-Net that it is for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import safe_open
from torch import Tensor, nn

from export.checkpoint.layouts import listed
from export.checkpoint.tensor_files import CheckpointError, is_there, read_json, refusing
from export.checkpoint.weight_files import WeightFiles
from export.options import Lora

_NAMES = (
    "pytorch_lora_weights.safetensors", "adapter_model.safetensors", "pytorch_lora_weights.bin",
    "adapter_model.bin",
)  # fmt: skip
# The prefix of a U-Net's changes in diffusers' files, and in peft's.
UNET, _PEFT = "unet.", "base_model.model."
_TEXT_ENCODER = re.compile(r"^text_encoder\.")
_CHANGE = re.compile(
    r"^(?P<module>.+)\.(?P<kind>lora_[AB]\.(?:weight|bias)|lora_magnitude_vector(?:\.weight)?)$"
)
# What diffusers does not read into a U-Net of Stable Diffusion 1.5, or not whole.
_OTHERS = (
    (re.compile(r"lora_te[12]_|text_encoder_2\.|add_embedding|label_emb"), "a LoRA of SDXL"),
    (re.compile(r"(?:single|double|joint)_?(?:transformer_)?blocks|^transformer\."),
     "a LoRA of a transformer (Flux, SD 3 and alike)"),
    (re.compile(r"dora_scale"), "a DoRA in kohya's layout, whose scales diffusers leaves out"),
    (re.compile(r"lokr_|hada_w|oft_|\.diff$|lora_mid|glora|b1\.weight$"),
     "of LyCORIS (LoKr, LoHa and alike), which diffusers does not read"),
)  # fmt: skip
# The fields of peft's own adapter_config.json that decide what a LoRA adds.
_CONFIG_FIELDS = (
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "use_rslora",
    "lora_bias", "fan_in_fan_out",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A LoRA as peft names it, checked against its U-Net.

    tensors: "<module>.lora_A.weight" [rank, in, ...] and "lora_B.weight" [out, rank, ...]. alphas:
    by module; a layer without one has its rank. metadata: fields of peft's LoraConfig, where the
    file brings them. left_out: how many tensors change a text encoder.
    """

    tensors: dict[str, Tensor]
    alphas: dict[str, float]
    metadata: dict[str, Any] | None
    left_out: int

    @property
    def modules(self) -> set[str]:
        return {name.partition(".lora_")[0] for name in self.tensors}


def lora_file(path: Path) -> Path:
    """The file that holds a LoRA: the path itself, or the one of its usual names in a folder."""
    if not path.is_dir():
        return path
    found = [path / name for name in _NAMES if is_there(path / name)]
    if not found:
        raise CheckpointError(f"{path} has no LoRA: expected {', '.join(_NAMES[:2])} or the file")
    return found[0]


def changes_of(lora: Lora, unet: UNet2DConditionModel) -> Changes:
    """Read a LoRA and check it against the U-Net that it is for, which may be without weights.

    Raises CheckpointError for what cannot be read and for whatever would not be merged.
    """
    file = lora_file(lora.path)
    weights = WeightFiles.open(file)
    for mark, what in _OTHERS:
        if any(mark.search(name) for name in weights.files):
            raise CheckpointError(f"{file} is {what}; a U-Net of Stable Diffusion 1.5 takes none")
    stored = {name: tensor.float() for name, tensor in weights.tensors(weights.files)}
    if broken := [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]:
        raise CheckpointError(f"{file} holds NaN or infinity in: {listed(broken)}")
    mixin: Any = StableDiffusionLoraLoaderMixin
    with refusing(lambda error: f"{file} is no LoRA that diffusers reads: {error!s:.400}"):
        named, alphas = mixin.lora_state_dict(stored, unet_config=unet.config)
    text = [name for name in named if _TEXT_ENCODER.match(name)]
    roots = {name for name, _ in unet.named_children()}
    ours = {name.removeprefix(UNET).removeprefix(_PEFT): t for name, t in named.items()
            if name not in text}  # fmt: skip
    strange = [name for name in ours if name.partition(".")[0] not in roots]
    if strange or not ours:
        raise CheckpointError(
            f"{file} changes no layer of this U-Net with: {listed(strange or text)}; it is not "
            "a LoRA of Stable Diffusion 1.5's U-Net"
        )
    tensors = _as_peft(ours)
    _check(file, tensors, unet)
    return Changes(
        tensors=tensors,
        alphas={_module_of_alpha(name): alpha for name, alpha in (alphas or {}).items()
                if name.startswith(UNET)},
        metadata=_metadata(file, is_peft=any(name.startswith(_PEFT) for name in named)),
        left_out=len(text),
    )  # fmt: skip


def _as_peft(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by peft's names, from those or diffusers' older ones."""
    if all(".lora_A" in name or ".lora_B" in name for name in tensors):
        return tensors
    convert: Any = convert_unet_state_dict_to_peft
    converted: dict[str, Tensor] = convert(
        {name.replace(".processor.", "."): tensor for name, tensor in tensors.items()}
    )
    return converted


def _module_of_alpha(name: str) -> str:
    """diffusers' name of an alpha -> the module it is for.

    diffusers keeps "attn1.processor.to_q_lora.down.weight.alpha", in which peft finds no layer.
    """
    inner = name.removeprefix(UNET).removesuffix(".alpha")
    if not inner.endswith(".weight"):
        return inner
    (converted,) = _as_peft({inner: torch.empty(0)})
    return converted.partition(".lora_")[0]


def _check(file: Path, tensors: Mapping[str, Tensor], unet: nn.Module) -> None:
    """Raise CheckpointError unless all tensors are pairs that fit layers of the U-Net."""
    layers = dict(unet.named_modules())
    strange, misfits = [], []
    for name, tensor in tensors.items():
        match = _CHANGE.match(name)
        layer = layers.get(match["module"]) if match else None
        if match is None or not isinstance(layer, nn.Linear | nn.Conv2d):
            strange.append(name)
            continue
        other = (
            f"{match['module']}.lora_{'B' if match['kind'].startswith('lora_A') else 'A'}.weight"
        )
        if other not in tensors:
            strange.append(f"{name} (without {other})")
        elif not _fits(match["kind"], tensor, tensors[other], layer.weight):
            misfits.append(f"{name} {list(tensor.shape)} for {list(layer.weight.shape)}")
    if strange:
        raise CheckpointError(f"{file} changes no layer of this U-Net with: {listed(strange)}")
    if misfits:
        raise CheckpointError(
            f"{file} does not fit this U-Net, it is a LoRA of another base: {listed(misfits)}"
        )


def _fits(kind: str, tensor: Tensor, other: Tensor, weight: Tensor) -> bool:
    if kind == "lora_A.weight":
        ranks = (tensor.shape[:1], other.shape[1:2])
        return tensor.shape[1:] == weight.shape[1:] and ranks[0] == ranks[1]
    if kind == "lora_B.weight":
        return tensor.ndim == weight.ndim and tensor.shape[0] == weight.shape[0]
    return tensor.numel() == weight.shape[0]


def _metadata(file: Path, *, is_peft: bool) -> dict[str, Any] | None:
    """The fields of peft's LoraConfig that a file brings: diffusers' in it, or peft's beside it."""
    if is_peft:
        config = read_json(file.parent / "adapter_config.json")
        return {name: config[name] for name in _CONFIG_FIELDS if config.get(name) is not None}
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get("lora_adapter_metadata")
    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: its lora_adapter_metadata is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: its lora_adapter_metadata is no JSON object")
    return {name.removeprefix(UNET): value for name, value in fields.items()
            if name.startswith(UNET)} or None  # fmt: skip
