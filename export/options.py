"""What a build is asked for: which model, in which form. The command line is made of this.

Imports nothing that a build needs, so that the command can say what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

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
RELEASED_MODEL = Sources(
    base="stable-diffusion-v1-5/stable-diffusion-v1-5",
    tdm="CodeGoat24/Face-diffuser",
    sdm="CodeGoat24/Face-diffuser",
    image_encoder="openai/clip-vit-large-patch14",
)
MODELS = {"shipped": SHIPPED_MODEL, "released": RELEASED_MODEL}
