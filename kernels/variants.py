"""The cubins a bundle carries: each kernel with its constants, and the types of the arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernels.fusion_blend import fusion_blend
from kernels.fusion_saliency import fusion_saliency
from kernels.guided_step import guided_step
from kernels.pixels import pixels

LATENT_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kernel with its constants; `warps` of 32 threads run one program.

    Warps are chosen so that a thread owns 8 neighboring pixels, one 16-byte load in half precision.
    """

    name: str
    kernel: Any
    warps: int
    constants: Mapping[str, int]


VARIANTS = (
    Variant(name="guided_step", kernel=guided_step, warps=4, constants={"BLOCK": 1024}),
    *(
        Variant(
            name=f"fusion_saliency_w{width}",
            kernel=fusion_saliency,
            warps=width // 32,
            constants={"CHANNELS": LATENT_CHANNELS, "ROWS": 8, "COLUMNS": width},
        )
        for width in (64, 128, 256)
    ),
    Variant(
        name="fusion_blend",
        kernel=fusion_blend,
        warps=2,
        constants={"CHANNELS": LATENT_CHANNELS, "BLOCK": 256, "TILES": 128},
    ),
    Variant(name="pixels", kernel=pixels, warps=8, constants={"BLOCK": 4096}),
)

# "element" is the engines' own type, the precision of the bundle.
_POINTERS = {
    "prediction": "element",
    "tdm_prediction": "element",
    "sdm_prediction": "element",
    "engine_latents": "element",
    "decoded": "element",
    "latents": "float32",
    "history": "float32",
    "delta": "float32",
    "table": "float32",
    "timestep": "float32",
    "tdm_map": "float32",
    "sdm_map": "float32",
    "sums": "float32",
    "clock": "int32",
    "faults": "int32",
    "mask": "uint8",
    "picture": "uint8",
}
_POINTER_MULTIPLE = 16
# h and w are multiples of 8 (engines.contract.SIZE_MULTIPLE_PX), so areas are multiples of 64.
_INTEGER_MULTIPLES = {"image_elements": 16, "plane": 16, "width": 8}


def argument_type(name: str) -> str:
    """What a kernel's argument of this name is: "int32", or "<type>*" for a pointer."""
    return f"{_POINTERS[name]}*" if name in _POINTERS else "int32"


def argument_multiple(name: str) -> int:
    """The promise the kernel is compiled with: the value is a multiple of this."""
    return _POINTER_MULTIPLE if name in _POINTERS else _INTEGER_MULTIPLES.get(name, 1)
