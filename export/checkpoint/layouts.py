"""What a file of tensors is, told by their names: wrappers taken off, other layouts named."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

# What torch.compile, distributed training and checkpointing put into names, wherever they wrapped.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_LEADING = re.compile(r"^(?:module\.)+")
# Averages of the weights that training keeps beside them.
_AVERAGES = re.compile(r"^(?:ema_(?:model|unet|text_encoder|image_encoder)?\.?|model_ema\.|ema\.)")
_SHOWN = 8

# The first that fits names the layout. (marks of tensor names, what it is, what to do)
_CONVERT = (
    'python -c "from diffusers import StableDiffusionPipeline as P; '
    "P.from_single_file('FILE').save_pretrained('FOLDER')\", then name FOLDER/unet"
)
_MERGE = (
    'python -c "from diffusers import StableDiffusionPipeline as P; '
    "p = P.from_pretrained('BASE'); p.load_lora_weights('FILE'); p.fuse_lora(); "
    "p.unload_lora_weights(); p.save_pretrained('FOLDER')\", then name FOLDER/unet"
)
_CHANGES = re.compile(r"lora_(?:up|down|A|B|unet|te)|\.lora\.|lora_linear_layer|\.lokr_|\.hada_w")
_LAYOUTS = (
    (
        _CHANGES,
        "a LoRA: changes of a model's weights, not the weights",
        f"merge it into its model: {_MERGE}",
    ),
    (
        re.compile(r"^(?:model\.diffusion_model|cond_stage_model|first_stage_model)\."),
        "a single-file checkpoint (the original Stable Diffusion layout, LDM)",
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


def bare_name(name: str) -> str:
    """A tensor's name without what wrappers of its module put into it."""
    while (bare := _LEADING.sub("", _WRAPPERS.sub("", name))) != name:
        name = bare
    return name


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
