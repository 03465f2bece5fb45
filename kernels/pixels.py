"""The VAE's output as the bytes of a picture."""

import triton
import triton.language as tl

from kernels.step import note_fault
from kernels.table import DECODER


@triton.jit
def pixels(
    decoded,  # [images, 3, 8h, 8w] in [-1, 1], the engine's type
    picture,  # [images, 8h, 8w, 3] uint8, written
    faults,  # [4] int32, written where a number is not finite
    plane,  # 8h * 8w
    BLOCK: tl.constexpr,
):
    """One program writes BLOCK bytes of one picture, channels last; grid (blocks, images)."""
    image = tl.program_id(1)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < 3 * plane

    source = image * 3 * plane + (offsets % 3) * plane + offsets // 3
    value = tl.load(decoded + source, mask=inside, other=0.0).to(tl.float32)

    note_fault(faults, DECODER, image, value)
    level = tl.minimum(tl.maximum(value * 0.5 + 0.5, 0.0), 1.0) * 255.0
    # Adding 1.5 * 2**23 leaves no fraction bits: round half to even, as numpy's round does.
    rounded = (level + 12582912.0) - 12582912.0
    tl.store(picture + image * 3 * plane + offsets, rounded.to(tl.int32).to(tl.uint8), mask=inside)
