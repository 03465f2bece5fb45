"""Writes examples/mini/model: Face-Diffuser in small, in the released layout, with random weights.

    python examples/mini/make_untrained.py [FOLDER]

The architecture is Stable Diffusion 1.5's with fewer and narrower layers, for 128 px pictures; the
weights are seeded and in half precision. Its pictures show colors and shapes, nobody's face.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from make_tokenizer import BOS, EOS, make_tokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY))

from export.fusion_mlp import FusionMLP  # noqa: E402
from export.modules_from_weights import (  # noqa: E402
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from export.random_weights import SCHEDULER_CONFIG  # noqa: E402

TEXT_WIDTH = 64

UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64, 80, 80],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "norm_eps": 1e-05,
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "sample_size": 128,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [16, 32, 48, 48],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "act_fn": "silu",
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "model_type": "clip_text_model",
    "architectures": ["CLIPTextModel"],
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-05,
    "projection_dim": TEXT_WIDTH,
}
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "architectures": ["CLIPVisionModelWithProjection"],
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-05,
    "projection_dim": TEXT_WIDTH,
}
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def main(folder: Path) -> None:
    """Writes the whole model; the same numbers on each run of the same PyTorch."""
    base = folder / "base"
    vocabulary = make_tokenizer(base / "tokenizer")
    text = TEXT | {
        "vocab_size": vocabulary,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    configs = {
        "base/model_index.json": INDEX,
        "base/unet/config.json": UNET,
        "base/vae/config.json": VAE,
        "base/text_encoder/config.json": text,
        "base/scheduler/scheduler_config.json": SCHEDULER_CONFIG,
        "image_encoder/config.json": VISION,
    }
    for name, config in configs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    torch.manual_seed(20240309)
    vae = random_vae()
    tdm_unet = random_unet()
    sdm_unet = near(tdm_unet, share=0.1)
    sdm = {
        "text_encoder": random_encoder(text_encoder_from(text)),
        "image_encoder": random_encoder(image_encoder_from(VISION)),
        "postfuse_module": random_fusion_mlp(),
        "unet": sdm_unet,
    }
    save(base / "vae" / "diffusion_pytorch_model.safetensors", {"": vae})
    save(folder / "TDM" / "model.safetensors", {"unet": tdm_unet})
    save(folder / "SDM" / "model.safetensors", sdm)
    print(f"{folder}: vocabulary {vocabulary} ({BOS} {vocabulary - 2}, {EOS} {vocabulary - 1})")


def random_unet() -> nn.Module:
    """A U-Net that answers the prompt: its cross-attention and last layer are made louder."""
    unet: nn.Module = unet_from(UNET)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2" in name and name.endswith("weight"):
                parameter.mul_(2.0)
        last: nn.Module = unet.get_submodule("conv_out")
        for parameter in last.parameters():
            # Noise predictions of about the noise's own scale, 1.
            parameter.mul_(2.5)
    return unet


def near(unet: nn.Module, *, share: float) -> nn.Module:
    """A copy with a share of other random numbers, as a fine-tuned model is near its origin."""
    other = random_unet()
    mixed: nn.Module = unet_from(UNET)
    ours, theirs = unet.state_dict(), other.state_dict()
    mixed.load_state_dict({name: torch.lerp(ours[name], theirs[name], share) for name in ours})
    return mixed


def random_encoder(encoder: nn.Module) -> nn.Module:
    """An encoder whose embeddings differ from word to word and from photo to photo."""
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "embedding" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            elif parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[1] ** -0.5)
    return encoder


def random_fusion_mlp() -> nn.Module:
    """A fusion MLP with which a photo changes its word's embedding visibly."""
    fusion_mlp = FusionMLP(TEXT_WIDTH, TEXT_WIDTH)
    with torch.no_grad():
        for name, parameter in fusion_mlp.named_parameters():
            if ".fc" in name:
                parameter.mul_(3.0)
    return fusion_mlp


def random_vae() -> nn.Module:
    """A VAE whose decoded pictures of unit noise use the range of colors: mean 0, deviation 0.5."""
    vae = vae_from(VAE).eval()
    latents = torch.randn(4, 4, 16, 16) / VAE["scaling_factor"]
    with torch.no_grad():
        pixels = vae.decode(latents).sample
        mean, deviation = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
        last: Any = vae.decoder.conv_out
        last.weight.mul_(0.5 / deviation[:, None, None, None])
        last.bias.copy_((last.bias - mean) * 0.5 / deviation)
    result: nn.Module = vae
    return result


def save(path: Path, modules: dict[str, nn.Module]) -> None:
    """The modules' tensors in one half-precision file, named prefix.name."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        for name, tensor in module.state_dict().items():
            tensors[f"{prefix}.{name}".lstrip(".")] = tensor.half().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parent / "model")
