"""The fusion stage's first launch: both saliency maps and their sums."""

import triton
import triton.language as tl

from kernels.guidance import guided
from kernels.saliency import smoothed, softmax_sums
from kernels.step import table_row
from kernels.table import GUIDANCE_SCALE

HALO = tl.constexpr(2)


@triton.jit
def fusion_saliency(
    tdm_prediction,  # [passes * images, C, h, w], the engine's type
    sdm_prediction,  # [passes * images, C, h, w], the engine's type
    tdm_map,  # [images, h, w] float32, written: smoothed, before the softmax
    sdm_map,  # [images, h, w] float32, written
    sums,  # [images, 4, tiles] float32, written: TDM's peak and total, SDM's peak and total
    table,  # [steps + 1, 10] float32
    clock,  # [2] int32, read
    tdm_base,  # passes by role (runtime.method.guidance.Guide)
    tdm_target,
    sdm_base,
    sdm_target,
    height,
    width,
    plane,  # h * w
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,  # loaded; two at either end only feed the stencil
    COLUMNS: tl.constexpr,  # at least w
):
    """One program maps ROWS - 4 full rows of one image, for both models; grid (tiles, images)."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    image, images = tl.program_id(1), tl.num_programs(1)
    first = tile * (ROWS - 2 * HALO) - HALO
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    pixels = rows[:, None] * width + columns[None, :]
    on_map = (rows >= 0)[:, None] & (rows < height)[:, None] & (columns < width)[None, :]
    offsets = tl.arange(0, CHANNELS)[:, None, None] * plane + pixels[None, :, :]
    loaded = on_map[None, :, :] & (tl.arange(0, CHANNELS) >= 0)[:, None, None]
    own_row = (rows >= first + HALO) & (rows < first + ROWS - HALO)
    own = on_map & own_row[:, None]
    _, row = table_row(table, clock)

    scale, elements = tl.load(row + GUIDANCE_SCALE), CHANNELS * plane
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
        loaded,
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
        loaded,
    )

    tdm = smoothed(tl.sum(tl.abs(tdm_guidance), axis=0), rows, columns, height, width) / CHANNELS
    sdm = smoothed(tl.sum(tl.abs(sdm_guidance), axis=0), rows, columns, height, width) / CHANNELS
    tdm_peak, tdm_total = softmax_sums(tdm, own)
    sdm_peak, sdm_total = softmax_sums(sdm, own)

    tl.store(tdm_map + image * plane + pixels, tdm, mask=own)
    tl.store(sdm_map + image * plane + pixels, sdm, mask=own)
    own_sums = sums + image * 4 * tiles + tile
    tl.store(own_sums, tdm_peak)
    tl.store(own_sums + tiles, tdm_total)
    tl.store(own_sums + 2 * tiles, sdm_peak)
    tl.store(own_sums + 3 * tiles, sdm_total)
