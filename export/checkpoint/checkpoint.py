"""The model to export: which weights each component takes, and from which file.

The released layout keeps everything in two files: of the SDM's, the text encoder (for both U-Nets),
the image encoder, the fusion MLP and a U-Net are used; of the TDM's, the U-Net alone. The VAE, the
tokenizer, the scheduler and all configurations are the base's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from engines.contract import NOISE_PREDICTORS, Component
from export.checkpoint.configurations import (
    check_unet,
    check_vae,
    noise_schedule,
    tokenizer_of,
)
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.layouts import is_change, layout_of, listed
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    module_from_weights,
    text_config_from,
    text_encoder_from,
    unet_from,
    vae_from,
    vision_config_from,
)
from export.checkpoint.sources import (
    base_folder,
    checkpoint_path,
    image_encoder_config,
    license_line,
)
from export.checkpoint.weight_files import CheckpointError, WeightFiles, read_json, sha256_of
from export.options import RELEASED_MODEL, SHIPPED_MODEL, Sources

__all__ = [
    "RELEASED_MODEL",
    "SHIPPED_MODEL",
    "Checkpoint",
    "CheckpointError",
    "ModelSource",
    "Sources",
]

Module = TypeVar("Module", bound=nn.Module)

_TEXT_ENCODER, _IMAGE_ENCODER, _FUSION_MLP = "text_encoder.", "image_encoder.", "postfuse_module."
_UNET, _VAE = "unet.", "vae."
_PREFIXES = (_TEXT_ENCODER, _IMAGE_ENCODER, _FUSION_MLP, _UNET, _VAE)
# A tensor that every U-Net has: a checkpoint with it at the top level is a plain diffusers one.
_UNET_MARK = "conv_in.weight"


class ModelSource(Protocol):
    """What an export reads: float32 torch modules in eval mode, made anew by each call."""

    def text_encoder(self) -> CLIPTextModel: ...
    def image_encoder(self) -> CLIPVisionModelWithProjection: ...
    def fusion_mlp(self) -> FusionMLP: ...
    def unet(self, component: Component) -> UNet2DConditionModel: ...
    def vae_decoder(self) -> AutoencoderKL: ...
    def config(self, component: Component) -> dict[str, Any]: ...
    def scheduler_config(self) -> dict[str, Any]: ...

    @property
    def tokenizer_folder(self) -> Path: ...

    def digest(self, component: Component) -> str: ...
    def source_digests(self) -> dict[str, str]: ...
    def licenses(self) -> list[str]: ...


@dataclass(frozen=True)
class _Part:
    """Where one component comes from: names with a prefix in files, and the configurations."""

    weights: WeightFiles
    prefix: str
    configs: tuple[Path, ...]


class Checkpoint:
    """A checkpoint on disk. Opening reads names alone; each method reads one component's weights.

    The methods raise CheckpointError where files and configurations do not agree.
    """

    def __init__(
        self, sources: Sources, base: Path, tdm: WeightFiles, sdm: WeightFiles, vision: Path
    ) -> None:
        self._sources = sources
        self._base = base
        self._roles = {"tdm": tdm, "sdm": sdm}
        self._vision = vision

    @staticmethod
    def open(sources: Sources) -> Checkpoint:
        """Finds the files, downloading those of hub ids; CheckpointError says what is missing."""
        revision = sources.revision
        checkpoint = Checkpoint(
            sources,
            base_folder(sources.base, revision),
            WeightFiles.open(checkpoint_path(sources.tdm, revision, "TDM")),
            WeightFiles.open(checkpoint_path(sources.sdm, revision, "SDM")),
            image_encoder_config(sources.image_encoder, revision),
        )
        checkpoint._check()
        return checkpoint

    def text_encoder(self) -> CLIPTextModel:
        """The SDM checkpoint's text encoder, which serves both U-Nets."""
        return self._module(Component.TEXT_ENCODER, text_encoder_from)

    def image_encoder(self) -> CLIPVisionModelWithProjection:
        """The SDM checkpoint's image encoder with its projection."""
        return self._module(Component.IMAGE_ENCODER, image_encoder_from)

    def fusion_mlp(self) -> FusionMLP:
        """The SDM checkpoint's fusion MLP, as wide as the two encoders' outputs."""
        part = self._part(Component.FUSION_MLP)
        text, vision = (read_json(config) for config in part.configs)
        text_width = text_config_from(text).hidden_size
        subject_width = vision_config_from(vision).projection_dim
        build = partial(FusionMLP, text_width, subject_width)
        return module_from_weights(build, part.configs[0], part.weights, part.prefix)

    def unet(self, component: Component) -> UNet2DConditionModel:
        """The U-Net of Component.TDM_UNET or Component.SDM_UNET."""
        if component not in NOISE_PREDICTORS:
            raise ValueError(f"{component} is no U-Net; expected one of {NOISE_PREDICTORS}")
        return self._module(component, unet_from)

    def vae_decoder(self) -> AutoencoderKL:
        """The base's VAE, both halves of it; a picture needs its decoder."""
        return self._module(Component.VAE_DECODER, vae_from)

    def config(self, component: Component) -> dict[str, Any]:
        """The architecture of a component, as its configuration file says it."""
        return read_json(self._part(component).configs[0])

    def scheduler_config(self) -> dict[str, Any]:
        """The base's scheduler configuration, all of which is followed."""
        path = self._base / "scheduler" / "scheduler_config.json"
        config = read_json(path)
        noise_schedule(config, path)
        return config

    @property
    def tokenizer_folder(self) -> Path:
        """The base's tokenizer: vocab.json and merges.txt, or tokenizer.json."""
        return self._base / "tokenizer"

    def digest(self, component: Component) -> str:
        """A sha256 that changes with any file the component is read from, wherever it lies."""
        part = self._part(component)
        digest = hashlib.sha256(part.prefix.encode())
        names = part.weights.names(part.prefix)
        for line in [*part.weights.digests(names), *map(sha256_of, part.configs)]:
            digest.update(line.encode())
        return digest.hexdigest()

    def source_digests(self) -> dict[str, str]:
        """The sha256 of each file that an export reads, by its name below its part."""
        files = {}
        for component in Component:
            part = self._part(component)
            used = {part.weights.files[name][0] for name in part.weights.names(part.prefix)}
            files.update({self._public_name(path): path for path in (*used, *part.configs)})
        scheduler = self._base / "scheduler" / "scheduler_config.json"
        tokenizer = (path for path in self.tokenizer_folder.iterdir() if path.is_file())
        files.update({self._public_name(path): path for path in (scheduler, *tokenizer)})
        return {name: sha256_of(path) for name, path in sorted(files.items())}

    def licenses(self) -> list[str]:
        """What is known of the licenses of the four sources, a line each."""
        sources = self._sources
        parts = (sources.base, sources.tdm, sources.sdm, sources.image_encoder)
        return [license_line(source) for source in dict.fromkeys(parts)]

    def _module(
        self, component: Component, from_config: Callable[[dict[str, Any]], Module]
    ) -> Module:
        part = self._part(component)
        config = part.configs[0]
        build = partial(from_config, read_json(config))
        return module_from_weights(build, config, part.weights, part.prefix)

    def _part(self, component: Component) -> _Part:
        tdm, sdm = self._roles["tdm"], self._roles["sdm"]
        text = self._base / "text_encoder" / "config.json"
        match component:
            case Component.TEXT_ENCODER:
                return _Part(sdm, _TEXT_ENCODER, (text,))
            case Component.IMAGE_ENCODER:
                return _Part(sdm, _IMAGE_ENCODER, (self._vision,))
            case Component.FUSION_MLP:
                return _Part(sdm, _FUSION_MLP, (text, self._vision))
            case Component.TDM_UNET:
                return self._unet_part(tdm)
            case Component.SDM_UNET:
                return self._unet_part(sdm)
            case Component.VAE_DECODER:
                vae = self._base / "vae"
                return _Part(WeightFiles.open(vae), "", (vae / "config.json",))

    def _unet_part(self, weights: WeightFiles) -> _Part:
        base_config = self._base / "unet" / "config.json"
        if _UNET_MARK not in weights.files:
            return _Part(weights, _UNET, (base_config,))
        own_config = weights.path.parent / "config.json"
        return _Part(weights, "", (own_config if own_config.is_file() else base_config,))

    def _check(self) -> None:
        """Raises CheckpointError where a file is not of the layout that its role asks for."""
        for role, weights in self._roles.items():
            if role == "tdm" and _UNET_MARK in weights.files:
                continue
            unexpected = [
                name for name in weights.files if is_change(name) or not name.startswith(_PREFIXES)
            ]
            needed = (_UNET,) if role == "tdm" else _PREFIXES[:4]
            lacking = [prefix for prefix in needed if not weights.names(prefix)]
            if unexpected or lacking:
                other = layout_of(unexpected)
                raise CheckpointError(
                    f"{weights.path} is "
                    + (f"{other}; " if other else "")
                    + f"not a {role.upper()} checkpoint of the released layout: "
                    f"lacking: {', '.join(f'{prefix}*' for prefix in lacking) or '(none)'}; "
                    f"unexpected: {listed(unexpected)}; name another with --{role}"
                )
        self._check_configurations()

    def _check_configurations(self) -> None:
        """Raises CheckpointError for what would not be computed as the libraries do."""
        self.scheduler_config()
        for component in NOISE_PREDICTORS:
            check_unet(self.config(component), self._part(component).configs[0])
        check_vae(self.config(Component.VAE_DECODER), self._base / "vae" / "config.json")
        text = text_config_from(self.config(Component.TEXT_ENCODER))
        tokenizer_of(self.tokenizer_folder, text.vocab_size, text.max_position_embeddings)

    def _public_name(self, path: Path) -> str:
        """A file's name below its part: base/vae/config.json, sdm/model.safetensors."""
        if path == self._vision:
            return f"image_encoder/{path.name}"
        if path.is_relative_to(self._base):
            return f"base/{path.relative_to(self._base).as_posix()}"
        role = next(role for role, w in self._roles.items() if w.path.parent == path.parent)
        return f"{role}/{path.name}"
