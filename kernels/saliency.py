"""Saliency (paper, Eq. 3): smoothing as one exact stencil, and the softmax's two sums.

Both models go through the same operations in the same order, and these kernels are compiled without
floating-point contraction, so equal guidance gives equal maps bit for bit: exact ties stay ties.
"""

import triton
import triton.language as tl


@triton.jit
def shifted(
    x,  # [H, W]
    shift: tl.constexpr,
    axis: tl.constexpr,
):
    """Return x moved along an axis: element i is x[i + shift], and 0 outside the block."""
    size: tl.constexpr = x.shape[axis]
    index = tl.arange(0, size) + shift
    inside = (index >= 0) & (index < size)
    index = tl.expand_dims(tl.minimum(tl.maximum(index, 0), size - 1), 1 - axis)
    moved = tl.gather(x, tl.broadcast_to(index, x.shape), axis)
    return tl.where(tl.expand_dims(inside, 1 - axis), moved, 0.0)


@triton.jit
def smoothed_along(
    x,  # [H, W] float32, 0 outside the map
    position,  # [H] or [W]: each element's place in the map along the axis
    size,  # of the map along the axis
    axis: tl.constexpr,
):
    """Return 4 * (average pool of 4, then bilinear resize from size-1 to size) along one axis.

    The released AvgPool2d(4, stride 1, padding 1, zeros counted) and resize, multiplied out:
    out[i] = (t x[i-2] + x[i-1] + x[i] + x[i+1] + (1-t) x[i+2]) / 4, with t = (i + 0.5) / size,
    but 0 at the first and 1 at the last element, where the resize clamps.
    """
    t = (position.to(tl.float32) + 0.5) / size.to(tl.float32)
    t = tl.where(position <= 0, 0.0, tl.where(position >= size - 1, 1.0, t))
    t = tl.expand_dims(t, 1 - axis)
    middle = shifted(x, -1, axis) + x + shifted(x, 1, axis)
    return middle + (shifted(x, -2, axis) * t + shifted(x, 2, axis) * (1.0 - t))


@triton.jit
def smoothed(
    x,  # [H, W] float32, 0 outside the map
    rows,  # [H] of the map
    columns,  # [W] of the map
    height,
    width,
):
    """Return Smooth(x): [H, W] float32. The scale is a power of two, so it rounds nothing."""
    along_columns = smoothed_along(x, rows, height, axis=0)
    return smoothed_along(along_columns, columns, width, axis=1) / 16.0


@triton.jit
def softmax_sums(
    map,  # any block of float32
    inside,
):
    """Return (peak, total): the softmax of a pixel is exp(pixel - peak) / total."""
    map = tl.where(inside, map, float("-inf"))
    peak = tl.max(map)
    return peak, tl.sum(tl.exp(map - peak))


@triton.jit
def subject_wins(tdm_map, sdm_map, tdm_peak, tdm_total, sdm_peak, sdm_total):
    """Return the mask (Eq. 4): where SDM's saliency is strictly larger; a tie goes to TDM.

    Saliencies are compared as logarithms, differences first, which rounds least near a tie.
    """
    return sdm_map - tdm_map > (sdm_peak - tdm_peak) + (tl.log(sdm_total) - tl.log(tdm_total))
