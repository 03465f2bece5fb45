"""Classifier-free guidance (paper, Eq. 1 and 2) on blocks of an engine's output."""

import triton
import triton.language as tl


@triton.jit
def pass_of(prediction, role, image, images, image_elements):
    """Pointer to one image in one guidance pass of [passes * images, C, h, w], pass-major."""
    return prediction + (role * images + image) * image_elements


@triton.jit
def guided(
    prediction,  # [passes * images, C, h, w], the engine's type
    start,  # pass where the guided noise starts
    base,  # pass where the guidance starts
    target,  # pass where the guidance points
    scale,
    image,
    images,
    image_elements,  # C * h * w
    offsets,  # block of element offsets within one image
    inside,  # same shape; outside, everything is 0
):
    """Return guided noise = start + guidance, and guidance = scale * (target - base), float32."""
    base_pass = pass_of(prediction, base, image, images, image_elements)
    target_pass = pass_of(prediction, target, image, images, image_elements)
    base_noise = tl.load(base_pass + offsets, mask=inside, other=0.0).to(tl.float32)
    target_noise = tl.load(target_pass + offsets, mask=inside, other=0.0).to(tl.float32)
    guidance = scale * (target_noise - base_noise)
    start_noise = base_noise
    if start != base:
        start_pass = pass_of(prediction, start, image, images, image_elements)
        start_noise = tl.load(start_pass + offsets, mask=inside, other=0.0).to(tl.float32)
    return start_noise + guidance, guidance
