"""The shapes that a component's plan takes: one optimization profile per number of passes."""

from __future__ import annotations

from engines.bundle.manifest import Dimensions
from engines.contract import CONTRACTS, LATENT_PX, Component
from engines.plans.profiles import Profile

Shape = tuple[int, ...]
# By input tensor: smallest, best and largest shape.
ShapeRanges = dict[str, tuple[Shape, Shape, Shape]]

# Guidance passes batched in one call: TDM always guides null -> text. SDM sees text and augmented
# prompt (the released rule), and the null prompt as well by the paper's.
PASSES = {Component.TDM_UNET: (2,), Component.SDM_UNET: (2, 3)}
# One text encoder call encodes null, text and subject prompt; references come one at a time.
ROWS = {Component.TEXT_ENCODER: 3, Component.IMAGE_ENCODER: 1, Component.FUSION_MLP: 1}


def shape_ranges(
    component: Component, profile: Profile, dimensions: Dimensions
) -> tuple[ShapeRanges, ...]:
    """Shapes of a component's inputs, one entry per optimization profile of its plan."""
    images = (1, 1, 1) if component is Component.VAE_DECODER else profile.images
    sides = [px // LATENT_PX for px in profile.sides_px(dimensions.native_px)]
    ranges = []
    for passes in PASSES.get(component, (1,)):
        sizes = [
            {
                "images": count,
                "rows": count * passes,
                "h": side,
                "w": side,
                "n": ROWS.get(component, 1),
            }
            | _fixed(dimensions)
            for count, side in zip(images, sides, strict=True)
        ]
        ranges.append(
            {
                tensor.name: (
                    resolved(tensor.shape, sizes[0]),
                    resolved(tensor.shape, sizes[1]),
                    resolved(tensor.shape, sizes[2]),
                )
                for tensor in CONTRACTS[component].inputs
            }
        )
    return tuple(ranges)


def output_shape(component: Component, inputs: dict[str, Shape], dimensions: Dimensions) -> Shape:
    """Shape of a component's output for shapes of its inputs."""
    contract = CONTRACTS[component]
    sizes = _fixed(dimensions)
    for tensor in contract.inputs:
        for symbol, size in zip(tensor.shape, inputs[tensor.name], strict=True):
            sizes[str(symbol)] = size
    if "h" in sizes:
        sizes |= {f"{LATENT_PX}{side}": LATENT_PX * sizes[side] for side in ("h", "w")}
    return resolved(contract.outputs[0].shape, sizes)


def _fixed(dimensions: Dimensions) -> dict[str, int]:
    """Sizes that the model decides."""
    return {
        "tokens": dimensions.tokens,
        "text_width": dimensions.text_width,
        "subject_width": dimensions.subject_width,
        "latent_channels": dimensions.latent_channels,
        "image_px": dimensions.image_px,
    }


def resolved(shape: tuple[str | int, ...], sizes: dict[str, int]) -> Shape:
    """A contract's symbolic shape in numbers."""
    return tuple(size if isinstance(size, int) else sizes[size] for size in shape)
