"""Reference photos to the image encoder's input, as the released code prepares them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from engines.errors import ReferenceImageError

Uint8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

_BACKGROUND = (255, 255, 255, 255)
_MAX_SIDE_PX = 16384
_BLOCK_ROWS = 256


def load_reference(source: Any) -> Uint8Array:
    """A photo as uint8 RGB [h, w, 3].

    EXIF rotation is applied, transparency lies on white, 16-bit is scaled, of an animation the
    first frame counts. Raises ReferenceImageError naming what cannot be read.
    """
    if isinstance(source, np.ndarray):
        check_array(source)
        _check_sides("the reference", source.shape[1], source.shape[0])
        return source
    name = "the reference" if isinstance(source, Image.Image) else str(source)
    try:
        with warnings.catch_warnings():
            # Pillow warns of pictures that unpack to hundreds of megapixels, and raises of larger.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = source if isinstance(source, Image.Image) else _opened(source)
            _check_sides(name, *image.size)
            return _rgb(image)
    except ReferenceImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over; all of it means the same to a caller.
        raise ReferenceImageError(
            f"{name} cannot be read as a picture ({error or type(error).__name__}); "
            "give a PNG, JPEG or WebP photo"
        ) from error


def check_array(array: npt.NDArray[Any]) -> None:
    """Raise ReferenceImageError unless an array is a picture, uint8 [h, w, 3]."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ReferenceImageError(
            f"a reference array must be uint8 [h, w, 3], got {array.dtype} {list(array.shape)}"
        )


def reference_pixels(
    image: Uint8Array,
    resolution: int,
    image_px: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float32Array:
    """Pad to a square, resize, normalize: uint8 [h, w, 3] -> float32 [3, image_px, image_px].

    Follows the released transforms: zeros on both sides, the odd pixel left out; bilinear with
    antialiasing to `resolution`, rounded to 8 bit; then the same in float to the encoder's size.
    """
    planes = np.stack([_squared(plane, resolution) for plane in image.transpose(2, 0, 1)])
    # Whole numbers already where no resize was needed.
    planes = (np.clip(np.rint(planes), 0, 255) / 255).astype(np.float32)
    if resolution != image_px:
        planes = np.stack([_resized(plane, image_px, image_px) for plane in planes])
    mean_, std_ = (np.asarray(each, np.float32)[:, None, None] for each in (mean, std))
    normalized: Float32Array = (planes - mean_) / std_
    return normalized


def _squared(plane: Uint8Array, side: int) -> Float32Array:
    """Pad the shorter axis with zeros, floor(difference / 2) on each side, and resize to a square.

    Columns are padded and resized a block of rows at a time and rows are padded afterwards: the
    same numbers, without ever holding the padded photo in float.
    """
    height, width = plane.shape
    rows, columns = max(width - height, 0) // 2, max(height - width, 0) // 2
    across = np.empty((height, side), np.float32)
    for start in range(0, height, _BLOCK_ROWS):
        block = np.pad(plane[start : start + _BLOCK_ROWS], ((0, 0), (columns, columns)))
        across[start : start + _BLOCK_ROWS] = _resized(block.astype(np.float32), len(block), side)
    return _resized(np.pad(across, ((rows, rows), (0, 0))), side, side)


def _resized(plane: Float32Array, height: int, width: int) -> Float32Array:
    """Bilinear with antialiasing (Pillow's, the same filter as torch's), columns first."""
    size = (width, height)
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))


def _opened(path: str | Path) -> Image.Image:
    content = Path(path).read_bytes()
    if not content:
        raise ReferenceImageError(f"{path} is empty; give a PNG, JPEG or WebP photo")
    return Image.open(io.BytesIO(content))


def _check_sides(name: str, width: int, height: int) -> None:
    # The limit bounds what padding a narrow strip to a square may cost.
    if not 0 < min(width, height) <= max(width, height) <= _MAX_SIDE_PX:
        raise ReferenceImageError(
            f"{name} is {width}x{height} px; give a photo of 1 to {_MAX_SIDE_PX} px a side, "
            "cropped to the person"
        )


def _rgb(image: Image.Image) -> Uint8Array:
    if getattr(image, "is_animated", False):
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion from 16 bit clips instead of scaling; its floats count to 255.
        scale = 1 if image.mode == "F" else 257
        values = np.nan_to_num(np.asarray(image, np.float64) / scale)
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, _BACKGROUND), rgba)
    return np.asarray(image.convert("RGB"))
