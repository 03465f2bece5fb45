"""What plans are built for: profiles as data, and the shapes that they mean for a component."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engines.bundle.manifest import Dimensions
from engines.bundle.plan_record import PlanOptionError, is_static
from engines.contract import (
    CONTRACTS,
    ENCODER_ROWS,
    LATENT_PX,
    NOISE_PREDICTORS,
    SIZE_MULTIPLE_PX,
    Component,
    ShapeRanges,
)
from engines.guides import pass_counts


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Requests that a plan takes: images per call, and sides in units of the model's native size.

    images: fewest, best tuned for, most. size: the same of a side. decoder: name of the profile
    whose VAE decoder serves these sizes, as pictures are decoded one at a time.
    """

    name: str
    images: tuple[int, int, int]
    size: tuple[float, float, float]
    decoder: str
    help: str

    def sides_px(self, native_px: int) -> tuple[int, int, int]:
        """Smallest, best and largest side, in whole steps of 64 px."""
        low, best, high = (
            max(1, round(native_px * size / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX
            for size in self.size
        )
        return low, best, high


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="native",
            images=(1, 1, 1),
            size=(1, 1, 1),
            decoder="native",
            help="1 image at the model's native size (512x512 for Stable Diffusion 1.5); fastest",
        ),
        Profile(
            name="images",
            images=(1, 4, 4),
            size=(1, 1, 1),
            decoder="native",
            help="1 to 4 images at the native size, tuned for 4",
        ),
        Profile(
            name="sizes",
            images=(1, 1, 1),
            size=(1, 1.25, 1.5),
            decoder="sizes",
            help="1 image, each side from the native size to 1.5 times that (512 to 768 px)",
        ),
        Profile(
            name="images-sizes",
            images=(1, 2, 4),
            size=(1, 1.25, 1.5),
            decoder="sizes",
            help="1 to 4 images, each side from the native size to 1.5 times that",
        ),
    )
}
DEFAULT_PROFILE = "native"
# Encoders see the same shapes whatever is drawn, so one plan of theirs serves all profiles.
FIXED_PROFILE = "fixed"


def profile_named(name: str) -> Profile:
    """A profile by name; raises PlanOptionError listing what there is."""
    if name not in PROFILES:
        raise PlanOptionError(f"no profile {name!r}; there are: {', '.join(PROFILES)}")
    return PROFILES[name]


def plan_profile(component: Component, profile: Profile) -> str:
    """Name of the profile whose plan of a component serves `profile`."""
    if component in NOISE_PREDICTORS:
        return profile.name
    return profile.decoder if component is Component.VAE_DECODER else FIXED_PROFILE


def planned(
    component: Component, asked: Profile, dimensions: Dimensions
) -> Iterator[tuple[str, tuple[ShapeRanges, ...]]]:
    """A component's plans that serve a profile: their own profile's name and shapes.

    Static ones are one network for each number of passes.
    """
    name = plan_profile(component, asked)
    # Encoders have the same shapes in every profile.
    sizes = PROFILES[DEFAULT_PROFILE if name == FIXED_PROFILE else name]
    every = shape_ranges(component, sizes, dimensions)
    if len(every) == 1 or not all(map(is_static, every)):
        yield name, every
        return
    for passes, ranges in zip(pass_counts(component), every, strict=True):
        yield f"{name}-{passes}-pass{'es' if passes > 1 else ''}", (ranges,)


def shape_ranges(
    component: Component, profile: Profile, dimensions: Dimensions
) -> tuple[ShapeRanges, ...]:
    """Shapes of a component's inputs, one entry per optimization profile of its plan.

    A plan has one optimization profile for each number of guidance passes.
    """
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
