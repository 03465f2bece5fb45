"""The shapes that a component's plan takes: one optimization profile per number of passes."""

from __future__ import annotations

from engines.bundle.manifest import Dimensions
from engines.contract import CONTRACTS, ENCODER_ROWS, LATENT_PX, Component, ShapeRanges
from engines.guides import pass_counts
from engines.plans.profiles import Profile


def shape_ranges(
    component: Component, profile: Profile, dimensions: Dimensions
) -> tuple[ShapeRanges, ...]:
    """Shapes of a component's inputs, one entry per optimization profile of its plan."""
    contract = CONTRACTS[component]
    images = (1, 1, 1) if component is Component.VAE_DECODER else profile.images
    sides = [px // LATENT_PX for px in profile.sides_px(dimensions.native_px)]
    ranges = []
    for passes in pass_counts(component):
        low, best, high = (
            contract.shapes(
                dimensions.sizes()
                | {"images": count, "rows": count * passes, "h": side, "w": side}
                | {"n": ENCODER_ROWS.get(component, 1)}
            )
            for count, side in zip(images, sides, strict=True)
        )
        names = [tensor.name for tensor in contract.inputs]
        ranges.append({name: (low[name], best[name], high[name]) for name in names})
    return tuple(ranges)
