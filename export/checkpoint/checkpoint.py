"""The model to export: which weights each component takes, and from which file.

The released layout keeps everything in two files: of the SDM's, the text encoder (for both U-Nets),
the image encoder, the fusion MLP and a U-Net are used; of the TDM's, the U-Net alone. The VAE, the
tokenizer, the scheduler and all configurations are the base's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from engines.contract import NOISE_PREDICTORS, Component
from export.checkpoint.configurations import (
    check_encoder,
    check_unet,
    check_vae,
    noise_schedule,
)
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.loras.changes import lora_file
from export.checkpoint.loras.merging import checked, merge
from export.checkpoint.modules_from_weights import (
    fitted,
    module_from_weights,
    text_config_from,
)
from export.checkpoint.parts import (
    FUSION_MLP,
    IMAGE_ENCODER,
    TEXT_ENCODER,
    UNET,
    UNET_MARK,
    Part,
    built,
    check_layout,
)
from export.checkpoint.single_file import with_diffusers_names
from export.checkpoint.sources import (
    base_folder,
    checkpoint_path,
    commits_of,
    image_encoder_config,
    license_line,
)
from export.checkpoint.tokenizer import tokenizer_of
from export.checkpoint.weight_files import CheckpointError, WeightFiles, read_json, sha256_of
from export.options import RELEASED_MODEL, SHIPPED_MODEL, Lora, Sources

__all__ = [
    "RELEASED_MODEL",
    "SHIPPED_MODEL",
    "Checkpoint",
    "CheckpointError",
    "Sources",
]


class Checkpoint:
    """A checkpoint on disk. Opening reads names alone; each method reads one component's weights.

    The methods raise CheckpointError where files and configurations do not agree.
    """

    def __init__(
        self,
        sources: Sources,
        loras: Mapping[Component, Sequence[Lora]],
        base: Path,
        tdm: WeightFiles,
        sdm: WeightFiles,
        vision: Path,
    ) -> None:
        self._sources = sources
        self._loras = loras
        self._base = base
        self._roles = {"tdm": tdm, "sdm": sdm}
        self._vision = vision
        places = {"base": base, "tdm": tdm.path, "sdm": sdm.path, "image_encoder": vision}
        self._commits = commits_of(sources, places)
        self._remarks = [commit.in_words() for commit in self._commits if not commit.pinned]

    @staticmethod
    def open(
        sources: Sources,
        loras: Mapping[Component, Sequence[Lora]] = MappingProxyType({}),
        *,
        download: bool = True,
    ) -> Checkpoint:
        """Finds the files, downloading those of hub ids; CheckpointError says what is missing.

        loras: what to merge into the U-Nets, in this order. download: False raises
        NotDownloadedError where a repository is not here yet.
        """
        revision = sources.revision
        base = base_folder(sources.base, revision, download=download)
        tdm, sdm = (
            WeightFiles.open(checkpoint_path(source, revision, role, download=download))
            for source, role in ((sources.tdm, "TDM"), (sources.sdm, "SDM"))
        )
        checkpoint = Checkpoint(
            sources,
            loras,
            base,
            with_diffusers_names(tdm, read_json(base / "unet" / "config.json")),
            sdm,
            image_encoder_config(sources.image_encoder, revision, download=download),
        )
        checkpoint._check()
        return checkpoint

    def text_encoder(self) -> CLIPTextModel:
        """The SDM checkpoint's text encoder, which serves both U-Nets."""
        module: CLIPTextModel = self._module(Component.TEXT_ENCODER)
        return module

    def image_encoder(self) -> CLIPVisionModelWithProjection:
        """The SDM checkpoint's image encoder with its projection."""
        module: CLIPVisionModelWithProjection = self._module(Component.IMAGE_ENCODER)
        return module

    def fusion_mlp(self) -> FusionMLP:
        """The SDM checkpoint's fusion MLP, as wide as the two encoders' outputs."""
        module: FusionMLP = self._module(Component.FUSION_MLP)
        return module

    def unet(self, component: Component) -> UNet2DConditionModel:
        """The U-Net of Component.TDM_UNET or Component.SDM_UNET, its LoRAs merged."""
        if component not in NOISE_PREDICTORS:
            raise ValueError(f"{component} is no U-Net; expected one of {NOISE_PREDICTORS}")
        unet: UNet2DConditionModel = self._module(component)
        merge(unet, self._loras.get(component, ()))
        return unet

    def vae_decoder(self) -> AutoencoderKL:
        """The base's VAE, both halves of it; a picture needs its decoder."""
        module: AutoencoderKL = self._module(Component.VAE_DECODER)
        return module

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
        for lora in self._loras.get(component, ()):
            digest.update(f"{sha256_of(lora_file(lora.path))} {lora.weight!r}".encode())
        return digest.hexdigest()

    def source_digests(self) -> dict[str, str]:
        """The sha256 of each file that an export reads, by its name below its part.

        A LoRA's name ends in its weight: tdm_lora_1/style.safetensors:0.8. Of what came from the
        hub, the commit is there too: hub/tdm/owner/name.
        """
        files = {}
        for component in Component:
            part = self._part(component)
            used = {part.weights.files[name][0] for name in part.weights.names(part.prefix)}
            files.update({self._public_name(path): path for path in (*used, *part.configs)})
        scheduler = self._base / "scheduler" / "scheduler_config.json"
        tokenizer = (path for path in self.tokenizer_folder.iterdir() if path.is_file())
        files.update({self._public_name(path): path for path in (scheduler, *tokenizer)})
        for component, loras in self._loras.items():
            role = component.removesuffix("_unet")
            for number, lora in enumerate(loras, 1):
                file = lora_file(lora.path)
                files[f"{role}_lora_{number}/{file.name}:{lora.weight:g}"] = file
        digests = {name: sha256_of(path) for name, path in files.items()}
        digests |= {f"hub/{each.role}/{each.repository}": each.commit for each in self._commits}
        return dict(sorted(digests.items()))

    def licenses(self) -> list[str]:
        """What is known of the licenses of all sources, a line each."""
        sources = self._sources
        loras = (str(lora.path) for loras in self._loras.values() for lora in loras)
        parts = (sources.base, sources.tdm, sources.sdm, sources.image_encoder, *loras)
        return [license_line(source) for source in dict.fromkeys(parts)]

    def remarks(self) -> list[str]:
        """What a user should hear of the sources before the work starts, a sentence each."""
        return list(self._remarks)

    def _module(self, component: Component) -> Any:
        part = self._part(component)
        return module_from_weights(
            built(component, part), part.configs[0], part.weights, part.prefix
        )

    def _part(self, component: Component) -> Part:
        tdm, sdm = self._roles["tdm"], self._roles["sdm"]
        text = self._base / "text_encoder" / "config.json"
        match component:
            case Component.TEXT_ENCODER:
                return Part(sdm, TEXT_ENCODER, (text,))
            case Component.IMAGE_ENCODER:
                return Part(sdm, IMAGE_ENCODER, (self._vision,))
            case Component.FUSION_MLP:
                return Part(sdm, FUSION_MLP, (text, self._vision))
            case Component.TDM_UNET:
                return self._unet_part(tdm)
            case Component.SDM_UNET:
                return self._unet_part(sdm)
            case Component.VAE_DECODER:
                vae = self._base / "vae"
                return Part(WeightFiles.open(vae), "", (vae / "config.json",))

    def _unet_part(self, weights: WeightFiles) -> Part:
        base_config = self._base / "unet" / "config.json"
        if UNET_MARK not in weights.files:
            return Part(weights, UNET, (base_config,))
        own_config = weights.path.parent / "config.json"
        return Part(weights, "", (own_config if own_config.is_file() else base_config,))

    def _check(self) -> None:
        """Raises CheckpointError for whatever can be known to be wrong without reading weights."""
        for role, weights in self._roles.items():
            check_layout(role, weights)
        self._check_configurations()
        for component in Component:
            part = self._part(component)
            fitted(built(component, part), part.configs[0], part.weights, part.prefix)
        for component, loras in self._loras.items():
            config = self.config(component)
            self._remarks += [f"{component}: {checked(lora, config)}" for lora in loras]

    def _check_configurations(self) -> None:
        """Raises CheckpointError for what would not be computed as the libraries do."""
        self.scheduler_config()
        for component in NOISE_PREDICTORS:
            check_unet(self.config(component), self._part(component).configs[0])
        check_vae(self.config(Component.VAE_DECODER), self._base / "vae" / "config.json")
        for component, part in (
            (Component.TEXT_ENCODER, "text_config"),
            (Component.IMAGE_ENCODER, "vision_config"),
        ):
            check_encoder(self.config(component), part, self._part(component).configs[0])
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
