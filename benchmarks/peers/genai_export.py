"""The TDM as plain Stable Diffusion, in the folder that OpenVINO GenAI's pipeline opens.

What it reads was found by trying: an OpenVINO model per part with the tensor names below, of each
configuration the fields that are written here, and no field that is null.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from benchmarks.harness.options import SourceName
from benchmarks.peers.packages import peers_package
from benchmarks.peers.plain_export import FirstOutput
from benchmarks.peers.work import Exported
from engines.contract import Component
from export.checks.torch_pipeline import ddim_of
from export.graph.modules import TextEncoder
from export.source import ModelSource

_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
# The fields that GenAI reads.
_TEXT_FIELDS = ("max_position_embeddings", "num_hidden_layers")
_UNET_FIELDS = ("in_channels", "sample_size")
_VAE_FIELDS = (
    "in_channels", "out_channels", "latent_channels", "block_out_channels", "scaling_factor",
)  # fmt: skip


def exporting_for_genai(*, source: SourceName, folder: Path) -> Callable[[], Exported]:
    """In a worker: write the folder when asked. Raises NotInstalledError."""
    for name in ("openvino_genai", "openvino_tokenizers"):
        peers_package(name)
    opened = source.opened()

    def export() -> Exported:
        paths = (
            _text_encoder(opened, folder / "text_encoder"),
            _unet(opened, folder / "unet"),
            _vae_decoder(opened, folder / "vae_decoder"),
            _tokenizer(opened.tokenizer_folder, folder / "tokenizer"),
        )
        _write(folder / "scheduler" / "scheduler_config.json", ddim_config(opened))
        # Last, so that a folder with an index is whole.
        _write(folder / "model_index.json", _INDEX)
        return Exported(paths=paths)

    return export


def ddim_config(source: ModelSource) -> dict[str, Any]:
    """The reference's DDIM scheduler, every default written out, its betas one by one.

    From beta_start and beta_end GenAI 2026.4 would space them otherwise, the last one excluded
    (final latents 1.3e-3 off); given as trained betas they are taken as they are.
    """
    scheduler = ddim_of(source)
    config = {
        name: value
        for name, value in scheduler.config.items()
        if value is not None and not name.startswith("_")
    }
    return {"_class_name": "DDIMScheduler", **config, "trained_betas": scheduler.betas.tolist()}


def _text_encoder(source: ModelSource, folder: Path) -> Path:
    module = source.text_encoder()
    config = module.config.to_dict()
    ids = torch.zeros(2, config["max_position_embeddings"], dtype=torch.int64)
    _write(folder / "config.json", _fields(config, _TEXT_FIELDS))
    return _saved(TextEncoder(module), {"input_ids": ids}, "last_hidden_state", folder)


def _unet(source: ModelSource, folder: Path) -> Path:
    module: Any = source.unet(Component.TDM_UNET)
    config = module.config
    side = config["sample_size"]
    example = {
        "sample": torch.zeros(2, config["in_channels"], side, side),
        "timestep": torch.zeros(1, dtype=torch.int64),
        # As many tokens as CLIP's window has; the axis stays free.
        "encoder_hidden_states": torch.zeros(2, 77, config["cross_attention_dim"]),
    }
    _write(folder / "config.json", _fields(config, _UNET_FIELDS))
    return _saved(FirstOutput(module), example, "out_sample", folder)


def _vae_decoder(source: ModelSource, folder: Path) -> Path:
    module: Any = source.vae_decoder()
    example = {"latent_sample": torch.zeros(1, module.config["latent_channels"], 8, 8)}
    _write(folder / "config.json", _fields(module.config, _VAE_FIELDS))
    return _saved(nn.Sequential(module.post_quant_conv, module.decoder), example, "sample", folder)


def _tokenizer(source: Path, folder: Path) -> Path:
    tokenizer: Any = CLIPTokenizer.from_pretrained(source)
    model = peers_package("openvino_tokenizers").convert_tokenizer(tokenizer)
    path = folder / "openvino_tokenizer.xml"
    peers_package("openvino").save_model(model, path)
    return path


def _saved(module: nn.Module, example: dict[str, Tensor], output: str, folder: Path) -> Path:
    """Traced by OpenVINO's own converter and saved with float32 weights."""
    openvino = peers_package("openvino")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        positional = tuple(example.values())
        model = openvino.convert_model(module.eval(), example_input=positional)
    for port, name in zip(model.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({output})
    path = folder / "openvino_model.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _fields(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: config[name] for name in names}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1))
