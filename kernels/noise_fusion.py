"""Saliency-adaptive noise fusion (SNF) for any two epsilon models in PyTorch.

The tensors are PyTorch's, but only their methods are used: this, too, imports triton alone.
"""

from typing import Any

import triton

from kernels.fusion_blend import fusion_blend
from kernels.fusion_saliency import HALO, fusion_saliency

TILE_ROWS = 8
BLOCK_PIXELS = 256
COLUMNS_PER_WARP = 32
MAX_WIDTH = 512

Tensor = Any  # torch.Tensor


def fuse_noise(scene: Tensor, subject: Tensor, *, guidance_scale: float) -> tuple[Tensor, Tensor]:
    """Guide two models' noises and take, per pixel, the more salient one (paper, Eq. 1 to 5).

    scene: [2 * images, c, h, w], the guidance batch as a U-Net returns it: all images of the base
    pass, then all of the target pass. c is a power of two, h at least 3, w from 3 to 512.
    subject: the same of the other model; or [3 * images, c, h, w], where the guided noise starts at
    the first pass and the guidance runs from the second to the third (the paper's Eq. 2).
    Both contiguous, of one floating type, on the current GPU.
    Returns the guided, fused noise, [images, c, h, w] of the same type, computed in float32, and
    the mask, [images, h, w] bool, True where the subject's was taken; a tie goes to the scene.
    """
    rows, channels, height, width = scene.shape
    images, subject_passes = rows // 2, subject.shape[0] // max(rows // 2, 1)
    if rows != 2 * images or images == 0 or subject_passes not in (2, 3):
        raise ValueError(
            f"expected 2 passes and 2 or 3 of as many images, found {_shapes(scene, subject)}"
        )
    if subject.shape != (subject_passes * images, channels, height, width):
        raise ValueError(f"expected predictions of one size, found {_shapes(scene, subject)}")
    if scene.dtype != subject.dtype or not (scene.is_contiguous() and subject.is_contiguous()):
        raise ValueError(
            "expected contiguous predictions of one type; call .to(dtype).contiguous()"
        )
    if channels & (channels - 1) or min(height, width) < 3 or width > MAX_WIDTH:
        raise ValueError(
            f"expected 2**k channels, h >= 3, 3 <= w <= 512, found {_shapes(scene, subject)}"
        )

    tiles = triton.cdiv(height, TILE_ROWS - 2 * HALO.value)
    columns = max(triton.next_power_of_2(width), 2 * COLUMNS_PER_WARP)
    # A coefficient table of one step that "moves" zero latents to exactly the fused noise.
    table = scene.new_zeros(20).float()
    table[1], table[5], table[6] = 1.0, -1.0, guidance_scale
    clock, timestep, faults = (
        scene.new_zeros(2).int(),
        scene.new_zeros(1).float(),
        scene.new_zeros(4).int(),
    )
    latents = scene.new_zeros(images, channels, height, width).float()
    noise = scene.new_empty(images, channels, height, width)
    maps = latents.new_empty(2, images, height, width)
    sums = latents.new_empty(images, 4, tiles)
    mask = noise.new_empty(images, height, width).byte()
    base, target = subject_passes - 2, subject_passes - 1

    fusion_saliency[(tiles, images)](
        scene,
        subject,
        maps[0],
        maps[1],
        sums,
        table,
        clock,
        0,
        1,
        base,
        target,
        height,
        width,
        height * width,
        CHANNELS=channels,
        ROWS=TILE_ROWS,
        COLUMNS=columns,
        num_warps=columns // COLUMNS_PER_WARP,
        enable_fp_fusion=False,
    )
    fusion_blend[(triton.cdiv(height * width, BLOCK_PIXELS), images)](
        scene,
        subject,
        latents,
        noise,
        latents,
        maps[0],
        maps[1],
        sums,
        mask,
        table,
        clock,
        timestep,
        faults,
        0,
        0,
        1,
        0,
        base,
        target,
        height * width,
        tiles,
        1,
        CHANNELS=channels,
        BLOCK=BLOCK_PIXELS,
        TILES=triton.next_power_of_2(tiles),
        num_warps=2,
        enable_fp_fusion=False,
    )
    return noise, mask.bool()


def _shapes(scene: Tensor, subject: Tensor) -> str:
    return f"{tuple(scene.shape)} and {tuple(subject.shape)}"
