"""What a build is asked for: which model, in which form. The command line is made of this.

Imports nothing that a build needs, so that the command can say what is missing.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.manifest import Precision
from export import shipped


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The form of a bundle's graphs; the flags of export.build take names and defaults from here.

    opset: 23 keeps attention and normalizations whole; 21 is for TensorRT 10 releases whose parser
    does not read 23.
    """

    precision: Precision = Precision.FP16
    opset: int = 23


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A LoRA to merge into a U-Net: its file or folder, and how many times it is added."""

    path: Path
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.path.name}:{self.weight:g}"


def lora(text: str) -> Lora:
    """`PATH[:WEIGHT]`. What is a file as it stands is a path, whatever colons are in its name.

    Raises argparse.ArgumentTypeError where no number or no finite one is meant.
    """
    path, colon, number = text.rpartition(":")
    whole = Path(text).expanduser()
    try:
        weight = float(number)
    except ValueError:
        return Lora(path=whole)
    if not colon or not path or whole.exists():
        return Lora(path=whole)
    if not math.isfinite(weight):
        raise argparse.ArgumentTypeError(f"{text!r}: a weight is a finite number, as in {path}:0.8")
    return Lora(path=Path(path).expanduser(), weight=weight)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The parts of a model, each a local folder or file, or a hub id `owner/name[@revision]`.

    base: Stable Diffusion folder (configurations, VAE, tokenizer, scheduler).
    tdm, sdm: the two checkpoints; the same one twice is FastComposer.
    image_encoder: folder with the configuration of the CLIP image encoder.
    revision: branch, tag or commit of the hub ids that name none themselves.
    """

    base: str
    tdm: str
    sdm: str
    image_encoder: str
    revision: str | None = None


SHIPPED_MODEL = Sources(
    base=str(shipped.MODEL / "base"),
    tdm=str(shipped.MODEL / "TDM"),
    sdm=str(shipped.MODEL / "SDM"),
    image_encoder=str(shipped.MODEL / "image_encoder"),
)
# Commits as others have published them; the released weights' own has not been seen here, so that
# what a download resolved to is said and kept in the manifest.
RELEASED_MODEL = Sources(
    base="stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    tdm="CodeGoat24/Face-diffuser",
    sdm="CodeGoat24/Face-diffuser",
    image_encoder="openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41",
)
MODELS = {"shipped": SHIPPED_MODEL, "released": RELEASED_MODEL}
