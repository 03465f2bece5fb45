"""Reference photos: the released transforms, and every kind of picture file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime import Identity, ReferenceImageError
from runtime.reference import load_reference, reference_pixels

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ref_transforms.npz")
SIZES = sorted({name.split(".")[0] for name in GOLDEN})
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize("side", [64, 112])
@pytest.mark.parametrize("size", SIZES)
def test_padding_and_resizing_are_the_released_ones(size: str, side: int) -> None:
    image = np.ascontiguousarray(GOLDEN[f"{size}.in"].transpose(1, 2, 0))
    found = np.rint(reference_pixels(image, side, side, ZERO, ONE) * 255)
    difference = np.abs(found - GOLDEN[f"{size}.out{side}_u8"])
    # Exact halves round by the last bit of the filter's weights, which Pillow keeps in double.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3)])
def test_every_picture_mode_becomes_rgb(mode: str, size: tuple[int, int]) -> None:
    assert load_reference(Image.new(mode, size)).shape == (size[1], size[0], 3)


def test_transparency_lies_on_white() -> None:
    assert (load_reference(Image.new("RGBA", (2, 2), (0, 0, 0, 0))) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((2, 2), 32768, np.uint16)).save(path)
    assert (load_reference(path) == 128).all()


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(path, exif=exif)
    assert load_reference(path).shape == (4, 2, 3)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    path = tmp_path / "blinking.gif"
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert load_reference(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_an_unreadable_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "him.png"
    path.write_bytes(content)
    with pytest.raises(ReferenceImageError, match=r"him\.png"):
        load_reference(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReferenceImageError, match=r"nobody\.png"):
        load_reference(tmp_path / "nobody.png")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([16, 33, 64]))
def test_any_size_gives_finite_pixels_in_range(height: int, width: int, resolution: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels = reference_pixels(image, resolution, 32, ZERO, ONE)
    assert pixels.shape == (3, 32, 32)
    # A triangle filter's weights are positive and sum to one, up to rounding.
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_a_foreign_file_is_no_identity(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "him.safetensors"
    path.write_bytes(content)
    with pytest.raises(ReferenceImageError, match=r"him\.safetensors"):
        Identity.load(path)
