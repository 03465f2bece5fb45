"""The contract: every tensor's name, shape and type, stated once.

Export writes ONNX models with these names, engines bind them, runtime fills them, tests check them.
Symbolic dimensions: `images` pictures per call, `rows` = passes * images (pass-major: all images of
the first guidance pass, then all of the second, ...), `n` any count, `h`, `w` latent height and
width (pixels / 8). `tokens`, `text_width`, `latent_channels` and the like are fixed numbers that
each model's own configuration decides (see `manifest.Dimensions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Component(StrEnum):
    """The parts of Face-Diffuser that are exported, in the order in which a request meets them."""

    TEXT_ENCODER = "text_encoder"
    IMAGE_ENCODER = "image_encoder"
    FUSION_MLP = "fusion_mlp"
    TDM_UNET = "tdm_unet"
    SDM_UNET = "sdm_unet"
    VAE_DECODER = "vae_decoder"


class ElementType(StrEnum):
    """What a tensor's elements are; FLOAT is half or single precision, as exported."""

    FLOAT = "float"
    FLOAT32 = "float32"
    INT32 = "int32"
    BOOL = "bool"


Shape = tuple[int, ...]
# By input tensor: smallest, best and largest shape.
ShapeRanges = dict[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True)
class Tensor:
    """One named input or output with its symbolic shape."""

    name: str
    shape: tuple[str | int, ...]
    element_type: ElementType = ElementType.FLOAT


@dataclass(frozen=True)
class Contract:
    """What a component takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs + self.outputs

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape]:
        """Every tensor's shape in numbers, given what each symbol stands for."""
        return {
            tensor.name: tuple(_number(dimension, sizes) for dimension in tensor.shape)
            for tensor in self.tensors
        }

    def sizes(self, inputs: Mapping[str, Shape]) -> dict[str, int]:
        """What the symbols stand for where the inputs have these shapes."""
        return {
            str(symbol): size
            for tensor in self.inputs
            for symbol, size in zip(tensor.shape, inputs[tensor.name], strict=True)
        }


def _number(dimension: str | int, sizes: Mapping[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    symbol = dimension.lstrip("0123456789")
    return int(dimension[: -len(symbol)] or 1) * sizes[symbol]


_NOISE_PREDICTOR = Contract(
    inputs=(
        Tensor("latents", ("images", "latent_channels", "h", "w")),
        # Each image's own, so that pictures at different steps can share a call. float32: sinusoids
        # of a timestep near 1000 need more than half precision's 11 bits.
        Tensor("timestep", ("images",), ElementType.FLOAT32),
        Tensor("prompt_embeds", ("rows", "tokens", "text_width")),
    ),
    outputs=(Tensor("noise_prediction", ("rows", "latent_channels", "h", "w")),),
)

CONTRACTS: dict[Component, Contract] = {
    Component.TEXT_ENCODER: Contract(
        inputs=(Tensor("input_ids", ("n", "tokens"), ElementType.INT32),),
        outputs=(Tensor("text_embeds", ("n", "tokens", "text_width")),),
    ),
    Component.IMAGE_ENCODER: Contract(
        inputs=(Tensor("reference_pixels", ("n", 3, "image_px", "image_px")),),
        outputs=(Tensor("subject_embeds", ("n", "subject_width")),),
    ),
    Component.FUSION_MLP: Contract(
        inputs=(
            Tensor("text_embeds", ("n", "tokens", "text_width")),
            Tensor("token_subject_embeds", ("n", "tokens", "subject_width")),
            Tensor("subject_token_mask", ("n", "tokens"), ElementType.BOOL),
        ),
        outputs=(Tensor("augmented_embeds", ("n", "tokens", "text_width")),),
    ),
    Component.TDM_UNET: _NOISE_PREDICTOR,
    Component.SDM_UNET: _NOISE_PREDICTOR,
    Component.VAE_DECODER: Contract(
        inputs=(Tensor("latents", ("images", "latent_channels", "h", "w")),),
        outputs=(Tensor("pixels", ("images", 3, "8h", "8w")),),
    ),
}

NOISE_PREDICTORS = (Component.TDM_UNET, Component.SDM_UNET)

# `n` of the calls before the first step: the text encoder encodes the null, the whole and the
# subjects' prompt at once; references come one at a time.
ENCODER_ROWS = {Component.TEXT_ENCODER: 3, Component.IMAGE_ENCODER: 1, Component.FUSION_MLP: 1}

# A picture's height and width come in whole steps of this many pixels: 8 px per latent, and the
# U-Net halves the latents three times.
SIZE_MULTIPLE_PX = 64
LATENT_PX = 8
