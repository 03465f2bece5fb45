"""The checkpoint behind a bundle: where the reference check and the peers get their weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engines.bundle.folder import Bundle
from engines.errors import FaceDiffuserError
from export.checkpoint.checkpoint import RELEASED_MODEL, SHIPPED_MODEL, Checkpoint, ModelSource
from export.checkpoint.random_weights import random_checkpoint

_PARTS = ("base", "tdm", "sdm", "image_encoder")
_MODELS = {"shipped": SHIPPED_MODEL, "released": RELEASED_MODEL}


class SourceMismatchError(FaceDiffuserError):
    """The checkpoint is not the one that a bundle was built from."""


@dataclass(frozen=True, kw_only=True)
class SourceName:
    """How a checkpoint is named on the command line, and to a worker process."""

    model: str = "shipped"
    parts: Mapping[str, str] | None = None

    def opened(self) -> ModelSource:
        """Raises CheckpointError."""
        if self.model == "random":
            return random_checkpoint()
        return Checkpoint.open(replace(_MODELS[self.model], **dict(self.parts or {})))

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "parts": dict(self.parts or {})}


def add_source_flags(flags: argparse.ArgumentParser) -> None:
    """The flags of export.build that name a checkpoint; by default the bundle tells."""
    flags.add_argument("--model", choices=[*_MODELS, "random"], help="default: as the bundle says")
    for part in _PARTS:
        flag = f"--{part.replace('_', '-')}"
        flags.add_argument(flag, metavar="PATH_OR_HUB_ID", help=f"take the {part} from here")


def source_name(words: Mapping[str, Any], bundle: Bundle | None) -> SourceName:
    """What the flags say, else the checkpoint among shipped and random that the bundle is of."""
    parts = {part: words[part] for part in _PARTS if words.get(part)}
    if parts or words.get("model"):
        return SourceName(model=words.get("model") or "shipped", parts=parts)
    for name in (SourceName(model="random"), SourceName(model="shipped")):
        if bundle is None or bundle.manifest.sources == name.opened().source_digests():
            return name
    raise SourceMismatchError(
        f"{bundle.path if bundle else ''} was built neither from the shipped model nor from random "
        "weights; name its checkpoint as for the build: --base, --tdm, --sdm, --image-encoder"
    )


def source_of(name: SourceName, bundle: Bundle) -> ModelSource:
    """The checkpoint, after its digests were found to be the bundle's."""
    source = name.opened()
    if source.source_digests() != bundle.manifest.sources:
        raise SourceMismatchError(
            f"{bundle.path} was built from other weights than the {name.model} model's; name its "
            "checkpoint with --base, --tdm, --sdm and --image-encoder"
        )
    return source
