"""Guidance and scheduler update of the scene and subject stages, in one launch."""

import triton
import triton.language as tl

from kernels.guidance import guided, pass_of
from kernels.step import advance, note_fault, table_row, take_step, update_of
from kernels.table import DELTA_ADDED, DELTA_KEPT, GUIDANCE_SCALE


@triton.jit
def guided_step(
    prediction,  # [passes * images, C, h, w], the engine's type
    latents,  # [images, C, h, w] float32, updated in place
    engine_latents,  # [images, C, h, w], the engine's type, written
    history,  # [3, images, C, h, w] float32
    delta,  # [images, C, h, w] float32, written or read where delta_use says so
    table,  # [steps + 1, 10] float32
    clock,  # [2] int32, advanced
    timestep,  # [images] float32, written: the next step's
    faults,  # [4] int32, written where a prediction is not finite
    model,  # whose prediction it is: TDM or SDM (kernels.table)
    start,  # passes by role (runtime.method.guidance.Guide)
    base,
    target,
    delta_use,  # 0, DELTA_KEPT or DELTA_ADDED (kernels.table)
    image_elements,  # C * h * w
    BLOCK: tl.constexpr,
):
    """One program steps BLOCK elements of one image; grid (blocks, images)."""
    image, images = tl.program_id(1), tl.num_programs(1)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < image_elements
    step, row = table_row(table, clock)

    scale = tl.load(row + GUIDANCE_SCALE)
    noise, _ = guided(
        prediction, start, base, target, scale, image, images, image_elements, offsets, inside
    )

    own = image * image_elements + offsets
    if delta_use == DELTA_ADDED:
        noise += tl.load(delta + own, mask=inside, other=0.0)
    if delta_use == DELTA_KEPT:
        target_pass = pass_of(prediction, target, image, images, image_elements)
        target_noise = tl.load(target_pass + offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(delta + own, noise - target_noise, mask=inside)

    note_fault(faults, model, step, noise)
    take_step(
        noise,
        update_of(row),
        latents,
        engine_latents,
        history,
        images * image_elements,
        own,
        inside,
    )
    advance(clock, timestep, table, step, tl.num_programs(0) * images, images)
