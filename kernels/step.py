"""The scheduler update and the clock, shared by every kernel that ends a step."""

import triton
import triton.language as tl

from kernels.table import (
    ARRIVALS,
    COLUMNS,
    HISTORY_0,
    HISTORY_SLOTS,
    KEEP_LATENTS,
    KEEP_NOISE,
    KEEP_SLOT,
    LATENTS,
    NOISE,
    STEP,
    TIMESTEP,
)


@triton.jit
def table_row(
    table,  # [steps + 1, COLUMNS] float32
    clock,  # [2] int32
):
    """Return the current step and a pointer to its row."""
    step = tl.load(clock + STEP)
    return step, table + step * COLUMNS


@triton.jit
def update_of(row):
    """Return the weights of latents, noise and history, KEEP_SLOT, and the kept ones' weights."""
    return (
        tl.load(row + LATENTS),
        tl.load(row + NOISE),
        tl.load(row + HISTORY_0),
        tl.load(row + HISTORY_0 + 1),
        tl.load(row + HISTORY_0 + 2),
        tl.load(row + KEEP_SLOT).to(tl.int32),
        tl.load(row + KEEP_LATENTS),
        tl.load(row + KEEP_NOISE),
    )


@triton.jit
def take_step(
    noise,  # block of float32
    update,  # of update_of
    latents,  # [images, C, h, w] float32, updated in place
    engine_latents,  # [images, C, h, w], the engines' type, written
    history,  # [HISTORY_SLOTS, images, C, h, w] float32
    slot_elements,  # images * C * h * w
    offsets,  # block of element offsets within [images, C, h, w]
    inside,
):
    """Move one block of latents to the next noise level, and keep for later what the row says."""
    old = tl.load(latents + offsets, mask=inside, other=0.0)
    new = update[0] * old
    new = tl.fma(noise, update[1], new)
    for slot in tl.static_range(HISTORY_SLOTS):
        weight = update[2 + slot]
        if weight != 0:
            kept = tl.load(history + slot * slot_elements + offsets, mask=inside, other=0.0)
            new = tl.fma(kept, weight, new)
    keep_slot = update[5]
    if keep_slot >= 0:
        # The slot may have been read just above, by other threads of this program.
        tl.debug_barrier()
        later = tl.fma(noise, update[7], update[6] * old)
        tl.store(history + keep_slot * slot_elements + offsets, later, mask=inside)
    tl.store(latents + offsets, new, mask=inside)
    tl.store(engine_latents + offsets, new.to(engine_latents.dtype.element_ty), mask=inside)


@triton.jit
def note_fault(
    faults,  # [4] int32
    who,  # whose numbers these are: TDM, SDM or DECODER
    where,  # the step, or the decoder's image
    numbers,  # block of float32, finite where they do not count
):
    """Record the first NaN or infinity: nothing is written where all numbers are finite."""
    finite = tl.abs(numbers) < float("inf")
    if tl.min(finite.to(tl.int32)) == 0:
        tl.atomic_cas(faults + who, 0, where + 1)


@triton.jit
def advance(
    clock,  # [2] int32
    timestep,  # [images] float32, written
    table,  # [steps + 1, COLUMNS] float32
    step,  # the step every program of this launch has read
    programs,  # in this launch
    images,
):
    """Count this program's arrival; the last one of the launch moves on to the next step.

    It sets the clock, and the timesteps that the engines read. A program arrives after it has read
    the step (barrier, then an atomic with acquire and release), so when the last arrives nobody
    reads the step any more, and no second launch is needed.
    """
    tl.debug_barrier()
    if tl.atomic_add(clock + ARRIVALS, 1) == programs - 1:
        tl.store(clock + ARRIVALS, 0)
        tl.store(clock + STEP, step + 1)
        following = tl.load(table + (step + 1) * COLUMNS + TIMESTEP)
        for image in range(images):
            tl.store(timestep + image, following)
