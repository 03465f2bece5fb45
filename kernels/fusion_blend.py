"""The fusion stage's second launch: mask, fused noise, scheduler update."""

import triton
import triton.language as tl

from kernels.guidance import guided
from kernels.saliency import subject_wins
from kernels.step import advance, note_fault, table_row, take_step, update_of
from kernels.table import GUIDANCE_SCALE, SDM, TDM


@triton.jit
def combined(
    sums,  # [2, tiles] float32: peaks, totals
    tiles,
    TILES: tl.constexpr,  # at least tiles
):
    """Return one (peak, total) for the whole map from those of its tiles."""
    tile = tl.arange(0, TILES)
    peaks = tl.load(sums + tile, mask=tile < tiles, other=float("-inf"))
    totals = tl.load(sums + tiles + tile, mask=tile < tiles, other=0.0)
    peak = tl.max(peaks)
    return peak, tl.sum(totals * tl.exp(peaks - peak))


@triton.jit
def fusion_blend(
    tdm_prediction,  # [passes * images, C, h, w], the engine's type
    sdm_prediction,  # [passes * images, C, h, w], the engine's type
    latents,  # [images, C, h, w] float32, updated in place
    engine_latents,  # [images, C, h, w], the engine's type, written
    history,  # [3, images, C, h, w] float32
    tdm_map,  # [images, h, w] float32 of fusion_saliency; replaced by the saliency on request
    sdm_map,  # [images, h, w] float32, likewise
    sums,  # [images, 4, tiles] float32 of fusion_saliency
    mask,  # [images, h, w] uint8, written on request
    table,  # [steps + 1, 10] float32
    clock,  # [2] int32, advanced
    timestep,  # [images] float32, written: the next step's
    faults,  # [4] int32, written where a prediction is not finite
    tdm_start,  # passes by role (runtime.method.guidance.Guide)
    tdm_base,
    tdm_target,
    sdm_start,
    sdm_base,
    sdm_target,
    plane,  # h * w
    tiles,  # 0: the addition ablation, which reads no maps
    keep_saliency,  # 1: write the mask and both saliency maps
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
):
    """One program fuses and steps BLOCK pixels of an image, all channels; grid (blocks, images)."""
    image, images = tl.program_id(1), tl.num_programs(1)
    pixels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, CHANNELS)
    on_map = pixels < plane
    offsets = channels[:, None] * plane + pixels[None, :]
    inside = on_map[None, :] & (channels >= 0)[:, None]
    step, row = table_row(table, clock)

    scale, elements = tl.load(row + GUIDANCE_SCALE), CHANNELS * plane
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

    if tiles > 0:
        image_sums = sums + image * 4 * tiles
        tdm_peak, tdm_total = combined(image_sums, tiles, TILES)
        sdm_peak, sdm_total = combined(image_sums + 2 * tiles, tiles, TILES)
        own = image * plane + pixels
        tdm = tl.load(tdm_map + own, mask=on_map, other=0.0)
        sdm = tl.load(sdm_map + own, mask=on_map, other=0.0)
        wins = subject_wins(tdm, sdm, tdm_peak, tdm_total, sdm_peak, sdm_total)
        noise = tl.where(wins[None, :], sdm_noise, tdm_noise)
        if keep_saliency != 0:
            tl.store(mask + own, wins.to(tl.uint8), mask=on_map)
            tl.store(tdm_map + own, tl.exp(tdm - tdm_peak) / tdm_total, mask=on_map)
            tl.store(sdm_map + own, tl.exp(sdm - sdm_peak) / sdm_total, mask=on_map)
    else:
        noise = 0.5 * (tdm_noise + sdm_noise)

    note_fault(faults, TDM, step, tdm_noise)
    note_fault(faults, SDM, step, sdm_noise)
    take_step(
        noise,
        update_of(row),
        latents,
        engine_latents,
        history,
        images * elements,
        image * elements + offsets,
        inside,
    )
    advance(clock, timestep, table, step, tl.num_programs(0) * images, images)
