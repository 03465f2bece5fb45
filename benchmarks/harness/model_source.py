"""The checkpoint behind a bundle: where the reference check and the peers get their weights."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness.options import SourceName, SourceOptions
from engines.bundle.folder import Bundle
from engines.errors import FaceDiffuserError
from export.checkpoint.checkpoint import RELEASED_MODEL, SHIPPED_MODEL, Checkpoint
from export.checkpoint.random_weights import random_checkpoint
from export.source import ModelSource

_MODELS = {"shipped": SHIPPED_MODEL, "released": RELEASED_MODEL}


class SourceMismatchError(FaceDiffuserError):
    """The checkpoint is not the one that a bundle was built from."""


def opened_source(name: SourceName) -> ModelSource:
    """Raises CheckpointError."""
    if name.model == "random":
        return random_checkpoint()
    return Checkpoint.open(replace(_MODELS[name.model], **name.parts))


def source_name(options: SourceOptions, bundle: Bundle | None) -> SourceName:
    """What the flags say, else the checkpoint among shipped and random that the bundle is of."""
    named = options.source()
    if named is not None:
        return named
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
