"""LoRAs merged into the weights of a U-Net, by diffusers and peft."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from export.checkpoint.layouts import listed
from export.checkpoint.loras.changes import UNET, Changes, changes_of
from export.checkpoint.modules_from_weights import unet_from
from export.checkpoint.tensor_files import CheckpointError, refusing
from export.options import Lora
from export.packages import LORA_PACKAGES, require_packages

_ADAPTER = "merged"


def checked(lora: Lora, config: dict[str, Any]) -> str:
    """Try a LoRA on a U-Net without weights, and return what it changes, as words.

    Raises CheckpointError if it could not be merged, MissingPackagesError without peft.
    """
    require_packages(LORA_PACKAGES)
    with torch.device("meta"):
        unet = unet_from(config)
    changes = attached(unet, lora)
    said = f"LoRA {lora} changes {len(changes.modules)} layers"
    if not changes.left_out:
        return said
    return (
        f"{said}; its {changes.left_out} tensors for a text encoder are left out: one text encoder "
        "serves both U-Nets"
    )


def attached(unet: UNet2DConditionModel, lora: Lora) -> Changes:
    """Put a LoRA's layers into a U-Net, which may be without weights.

    Raises CheckpointError unless diffusers and peft took in all of it and nothing beside it.
    """
    changes = changes_of(lora, unet)
    metadata = changes.metadata and {UNET + k: v for k, v in changes.metadata.items()}
    alphas = {f"{UNET}{module}.alpha": alpha for module, alpha in changes.alphas.items()}
    loads: Any = unet
    with (
        refusing(lambda error: f"{lora.path} cannot be merged: {error!s:.400}"),
        warnings.catch_warnings(),
    ):
        # What peft warns of is a field that it does not follow.
        warnings.filterwarnings("error", category=RuntimeWarning)
        loads.load_lora_adapter(
            {UNET + name: tensor for name, tensor in changes.tensors.items()},
            prefix="unet",
            adapter_name=_ADAPTER,
            network_alphas=None if metadata else alphas,
            metadata=metadata,
            low_cpu_mem_usage=True,
        )
    taken = {name for name, module in unet.named_modules() if hasattr(module, "lora_A")}
    if taken != changes.modules:
        raise CheckpointError(
            f"{lora.path} cannot be merged whole: its settings and its tensors disagree about "
            f"{listed(sorted(taken ^ changes.modules))}"
        )
    return changes


def merge(unet: UNet2DConditionModel, loras: Sequence[Lora]) -> None:
    """Add LoRAs to a U-Net's weights, one after the other, each times its weight.

    Raises CheckpointError for one that cannot be merged whole, that makes a weight infinite or
    changes none.
    """
    merges: Any = unet
    for lora in loras:
        modules = attached(unet, lora).modules
        before = {name: _weight(unet, name).clone() for name in modules}
        merges.fuse_lora(lora_scale=lora.weight)
        merges.unload_lora()
        after = {name: _weight(unet, name) for name in modules}
        if broken := [name for name, weight in after.items() if not torch.isfinite(weight).all()]:
            raise CheckpointError(
                f"{lora.path} with weight {lora.weight:g} makes weights infinite: {listed(broken)}"
            )
        if lora.weight and all(torch.equal(before[name], after[name]) for name in modules):
            raise CheckpointError(f"{lora.path} changes nothing: all that it adds is zero")
    unet.eval().requires_grad_(requires_grad=False)


def _weight(unet: nn.Module, module: str) -> Tensor:
    layer: Any = unet.get_submodule(module)
    weight: Tensor = getattr(layer, "base_layer", layer).weight
    return weight
