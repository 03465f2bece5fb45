"""What a file of tensors is, told by their names: wrappers taken off, other layouts named."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

# What torch.compile, distributed training and checkpointing put into names, wherever they wrapped.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))"
    r"(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# What holds the model in a training script, where it leads every name of a file.
_HOLDERS = ("model.", "net.", "network.", "pipeline.", "pipe.")
_ORIGINAL = "model.diffusion_model."
# Averages of the weights that training keeps beside them.
_AVERAGES = re.compile(r"^(?:(?:model_|module\.)?ema(?:_[a-z]+)*\.|[a-z]+_ema\.|shadow_params\.)")
_SHOWN = 8

# The first that fits names the layout. (marks of tensor names, what it is, what to do)
_CONVERT = (
    'python -c "from diffusers import StableDiffusionPipeline as P; '
    "P.from_single_file('FILE').save_pretrained('FOLDER')\", then name FOLDER/unet"
)
_CHANGES = re.compile(r"lora_(?:up|down|A|B|unet|te)|\.lora\.|lora_linear_layer|\.lokr_|\.hada_w")
_LAYOUTS = (
    (
        _CHANGES,
        "a LoRA: changes of a model's weights, not the weights",
        "merge it at export: --tdm-lora FILE or --sdm-lora FILE",
    ),
    (
        re.compile(r"^conditioner\.embedders\.|label_emb\.|^add_embedding\."),
        "a checkpoint of SDXL",
        "this system takes U-Nets of Stable Diffusion 1.5's kind",
    ),
    (
        re.compile(
            r"^(?:(?:model\.)?diffusion_model|cond_stage_model|first_stage_model|input_blocks)\."
        ),
        "a single-file checkpoint (the original Stable Diffusion layout, LDM)",
        "its U-Net is read as --tdm; it is no SDM, which has a fusion MLP and an image encoder; "
        f"convert it: {_CONVERT}",
    ),
    (
        re.compile(r"^(?:controlnet_|control_model\.|input_hint_block\.)"),
        "a ControlNet",
        "it is no U-Net of this system",
    ),
    (
        re.compile(r"^(?:double_blocks|single_blocks|transformer_blocks|joint_blocks)\."),
        "a transformer (Flux, SD 3 and alike)",
        "this system takes U-Nets of Stable Diffusion 1.5's kind",
    ),
    (
        re.compile(r"^(?:encoder|decoder)\.(?:conv_in|down_blocks|mid_block|up_blocks)\."),
        "a VAE",
        "its place is the vae folder of --base",
    ),
)


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Each tensor's name without what wrappers of its module put into it, by the stored one."""
    bare = {name: _WRAPPERS.sub("", name) for name in names}
    for holder in _HOLDERS:
        values = bare.values()
        if (
            bare
            and all(name.startswith(holder) for name in values)
            and not any(name.startswith(_ORIGINAL) for name in values)
        ):
            return _without(bare, holder)
    return bare


def _without(bare: Mapping[str, str], holder: str) -> dict[str, str]:
    """The names once more, without what holds all of them."""
    inner = bare_names([name.removeprefix(holder) for name in bare.values()])
    return {name: inner[held.removeprefix(holder)] for name, held in bare.items()}


def without_averages(names: Collection[str]) -> list[str]:
    """The names of weights alone, where averages of the same weights lie beside them."""
    weights = [name for name in names if not _AVERAGES.match(name)]
    return weights or list(names)


def is_change(name: str) -> bool:
    """Whether a tensor is a LoRA's, which no module of this system has."""
    return _CHANGES.search(name) is not None


def layout_of(names: Iterable[str]) -> str | None:
    """Which other layout these are the names of, and what to do about it; None if unknown."""
    names = list(names)
    for mark, what, fix in _LAYOUTS:
        if any(mark.search(name) for name in names):
            return f"{what}; {fix}"
    return None


def listed(names: Collection[str]) -> str:
    """Names in a message: the first few, and how many more there are."""
    if not names:
        return "(none)"
    first = [f"{name:.120}" for name in list(names)[:_SHOWN]]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def flattened(content: Mapping[str, object]) -> dict[str, object] | None:
    """Tensors by name from what a training script saved around them; None where there are none.

    Read are {"state_dict": {...}} and its namesakes, and {"unet": {...}, "text_encoder": {...}}.
    """
    for key in ("state_dict", "model_state_dict", "model", "module", "params", "weights"):
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner:
            return flattened(inner) or None
    nested = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    tensors = {key: value for key, value in content.items() if hasattr(value, "dtype")}
    for key, inner in nested.items():
        if inner and all(hasattr(value, "dtype") for value in inner.values()):
            tensors |= {f"{key}.{name}": value for name, value in inner.items()}
    return tensors or None
