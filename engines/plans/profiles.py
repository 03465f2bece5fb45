"""What a plan is built for (profiles) and how (options), as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.contract import NOISE_PREDICTORS, SIZE_MULTIPLE_PX, Component
from engines.errors import FaceDiffuserError

MAX_OPTIMIZATION_LEVEL = 5


class PlanOptionError(FaceDiffuserError, ValueError):
    """An option or profile that no plan can be built with."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How plans are built. The flags of engines.build take names, defaults and help from here."""

    optimization_level: int = field(
        default=3,
        metadata={
            "help": "0 to 5: how long TensorRT searches for fast kernels. Each level takes longer "
            "to build than the one before; TensorRT's own default is %(default)s"
        },
    )
    workspace_mib: int | None = field(
        default=None,
        metadata={
            "help": "scratch memory that a single layer may use, in MiB. A limit makes memory "
            "predictable and rules out some fast kernels (default: all of the GPU's memory)"
        },
    )
    max_aux_streams: int = field(
        default=0,
        metadata={
            "help": "streams that one engine may use beside its own. More can overlap small layers "
            "and cost activation memory; 0 leaves overlapping to the runtime, which runs the two "
            "U-Nets side by side (default: %(default)s)"
        },
    )
    hardware_compatible: bool = field(
        default=False,
        metadata={
            "help": "let plans run on every GPU from sm_80 on. Costs speed: only kernels that all "
            "of these GPUs have are used"
        },
    )
    strip_weights: bool = field(
        default=False,
        metadata={
            "help": "leave the weights out of the plans and take them from the ONNX files when a "
            "bundle opens. Small plans, at the price of a slower opening"
        },
    )

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= MAX_OPTIMIZATION_LEVEL:
            raise PlanOptionError(
                f"optimization_level={self.optimization_level}, expected 0 to "
                f"{MAX_OPTIMIZATION_LEVEL}"
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise PlanOptionError(f"workspace_mib={self.workspace_mib}, expected 1 or more")
        if self.max_aux_streams < 0:
            raise PlanOptionError(f"max_aux_streams={self.max_aux_streams}, expected 0 or more")


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


def options_from(content: dict[str, Any]) -> PlanOptions:
    """Options from their JSON form; raises TypeError or PlanOptionError."""
    return PlanOptions(**content)
