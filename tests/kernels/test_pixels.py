"""VAE output to bytes, in the interpreter."""

import numpy as np
import pytest
import torch

from tests.kernels.trial import BY_NAME, launched
from tests.references.pixels import pixels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [(2, 64, 64), (1, 64, 192)])
def test_bytes_are_the_rounded_exact_values(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    images, height, width = size
    generator = torch.Generator().manual_seed(0)
    decoded = (torch.randn((images, 3, height, width), generator=generator) * 0.8).to(dtype)
    picture = torch.full((images, height, width, 3), 77, dtype=torch.uint8)
    elements = picture[0].numel()
    grid = (-(-elements // BY_NAME["pixels"].constants["BLOCK"]), images)
    faults = torch.zeros(4, dtype=torch.int32)
    launched("pixels", grid, decoded, picture, faults, height * width)

    exact = decoded.double().numpy()
    half_way = np.abs((np.clip(exact / 2 + 0.5, 0, 1) * 255) % 1 - 0.5).transpose(0, 2, 3, 1)
    # Exact in half precision; from float32, two roundings of values up to 255 can cross a half.
    decided = half_way > 2 * 255 * 2.0**-24
    assert (picture.numpy() == pixels(exact))[decided].all()
    assert decided.mean() > 0.99
    assert not faults.any()


def test_a_number_that_is_not_finite_never_passes_for_black() -> None:
    decoded = torch.zeros((2, 3, 64, 64), dtype=torch.float16)
    decoded[1, 2, 9, 9] = float("nan")
    picture, faults = torch.zeros((2, 64, 64, 3), dtype=torch.uint8), torch.zeros(4).int()
    launched("pixels", (3, 2), decoded, picture, faults, 64 * 64)
    assert faults.tolist() == [0, 0, 2, 0]
