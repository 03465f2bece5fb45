"""The whole fusion stage between two U-Net calls in one launch, for latents of one fixed size."""

import triton
import triton.language as tl

from kernels.guidance import guided
from kernels.saliency import smoothed, softmax_sums, subject_wins
from kernels.step import advance, note_fault, table_row, take_step, update_of
from kernels.table import GUIDANCE_SCALE, SDM, TDM


@triton.jit
def fusion_step(
    tdm_prediction,  # [passes * images, C, H, W], the engine's type
    sdm_prediction,  # [passes * images, C, H, W], the engine's type
    latents,  # [images, C, H, W] float32, updated in place
    engine_latents,  # [images, C, H, W], the engine's type, written
    history,  # [3, images, C, H, W] float32
    tdm_saliency,  # [images, H, W] float32, written on request
    sdm_saliency,  # [images, H, W] float32, written on request
    mask,  # [images, H, W] uint8, written on request
    table,  # [steps + 1, 8] float32
    clock,  # [2] int32, advanced
    timestep,  # [1] float32, written: the next step's
    faults,  # [4] int32, written where a prediction is not finite
    tdm_start,  # passes by role (runtime.method.guidance.Guide)
    tdm_base,
    tdm_target,
    sdm_start,
    sdm_base,
    sdm_target,
    keep_saliency,  # 1: write the mask and both saliency maps
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,  # a power of two, like WIDTH
    WIDTH: tl.constexpr,
):
    """One program fuses and steps one whole image; grid (images,)."""
    image, images = tl.program_id(0), tl.num_programs(0)
    plane: tl.constexpr = HEIGHT * WIDTH
    elements: tl.constexpr = CHANNELS * plane
    rows, columns = tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    pixels = rows[:, None] * WIDTH + columns[None, :]
    inside = tl.full((HEIGHT, WIDTH), 1, tl.int1)
    step, row = table_row(table, clock)
    update, scale = update_of(row), tl.load(row + GUIDANCE_SCALE)

    tdm = tl.zeros((HEIGHT, WIDTH), tl.float32)
    sdm = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for channel in range(CHANNELS):
        offsets = channel * plane + pixels
        _, tdm_guidance = guided(
            tdm_prediction,
            tdm_base,
            tdm_base,
            tdm_target,
            scale,
            image,
            images,
            elements,
            offsets,
            inside,
        )
        _, sdm_guidance = guided(
            sdm_prediction,
            sdm_base,
            sdm_base,
            sdm_target,
            scale,
            image,
            images,
            elements,
            offsets,
            inside,
        )
        tdm += tl.abs(tdm_guidance)
        sdm += tl.abs(sdm_guidance)

    height, width = tl.full((), HEIGHT, tl.int32), tl.full((), WIDTH, tl.int32)
    tdm = smoothed(tdm, rows, columns, height, width) / CHANNELS
    sdm = smoothed(sdm, rows, columns, height, width) / CHANNELS
    tdm_peak, tdm_total = softmax_sums(tdm, inside)
    sdm_peak, sdm_total = softmax_sums(sdm, inside)
    wins = subject_wins(tdm, sdm, tdm_peak, tdm_total, sdm_peak, sdm_total)

    if keep_saliency != 0:
        own = image * plane + pixels
        tl.store(mask + own, wins.to(tl.uint8))
        tl.store(tdm_saliency + own, tl.exp(tdm - tdm_peak) / tdm_total)
        tl.store(sdm_saliency + own, tl.exp(sdm - sdm_peak) / sdm_total)

    # Read again rather than kept: both models' noises of a whole image are more than the registers.
    for channel in range(CHANNELS):
        offsets = channel * plane + pixels
        tdm_noise, _ = guided(
            tdm_prediction,
            tdm_start,
            tdm_base,
            tdm_target,
            scale,
            image,
            images,
            elements,
            offsets,
            inside,
        )
        sdm_noise, _ = guided(
            sdm_prediction,
            sdm_start,
            sdm_base,
            sdm_target,
            scale,
            image,
            images,
            elements,
            offsets,
            inside,
        )
        note_fault(faults, TDM, step, tdm_noise)
        note_fault(faults, SDM, step, sdm_noise)
        take_step(
            tl.where(wins, sdm_noise, tdm_noise),
            update,
            latents,
            engine_latents,
            history,
            images * elements,
            image * elements + offsets,
            inside,
        )
    advance(clock, timestep, table, step, images)
