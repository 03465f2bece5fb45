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


def load_reference(source: Any) -> Uint8Array:
    """A photo as uint8 RGB [h, w, 3].

    EXIF rotation is applied, transparency lies on white, 16-bit is scaled, of an animation the
    first frame counts. Raises ReferenceImageError naming what cannot be read.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise ReferenceImageError(
                f"a reference array must be uint8 [h, w, 3], got {source.dtype} {source.shape}"
            )
        return source
    name = "the reference" if isinstance(source, Image.Image) else str(source)
    try:
        with warnings.catch_warnings():
            # Pillow warns of pictures that unpack to hundreds of megapixels, and raises of larger.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = source if isinstance(source, Image.Image) else _opened(source)
            return _rgb(image)
    except ReferenceImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over; all of it means the same to a caller.
        raise ReferenceImageError(
            f"{name} cannot be read as a picture ({error or type(error).__name__}); "
            "give a PNG, JPEG or WebP photo"
        ) from error


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
    planes = padded_to_square(image).astype(np.float32)
    if planes.shape[:2] != (resolution, resolution):
        planes = np.clip(np.rint(_resized(planes, resolution)), 0, 255)
    planes = planes / np.float32(255)
    if resolution != image_px:
        planes = _resized(planes, image_px)
    normalized = (planes - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1))


def padded_to_square(image: Uint8Array) -> Uint8Array:
    """Pad the shorter axis with zeros on both sides, floor(difference / 2) each, as released."""
    height, width = image.shape[:2]
    rows, columns = (max(width - height, 0) // 2, max(height - width, 0) // 2)
    return np.pad(image, ((rows, rows), (columns, columns), (0, 0)))


def _resized(planes: Float32Array, side: int) -> Float32Array:
    """Bilinear with antialiasing (Pillow's, the same filter as torch's), [h, w, 3] float32."""
    channels = [
        np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR))
        for plane in np.ascontiguousarray(planes.transpose(2, 0, 1))
    ]
    return np.stack(channels, axis=2)


def _opened(path: str | Path) -> Image.Image:
    content = Path(path).read_bytes()
    if not content:
        raise ReferenceImageError(f"{path} is empty; give a PNG, JPEG or WebP photo")
    return Image.open(io.BytesIO(content))


def _rgb(image: Image.Image) -> Uint8Array:
    if getattr(image, "is_animated", False):
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion from 16 bit clips instead of scaling.
        values = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, _BACKGROUND), rgba)
    return np.asarray(image.convert("RGB"))
