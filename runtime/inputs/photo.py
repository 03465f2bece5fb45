"""Reference photos to the image encoder's input, as the released code prepares them."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from engines.blame import raised_within
from engines.errors import ReferenceImageError
from runtime.inputs.levels import eight_bits
from runtime.inputs.photo_file import GIVE, content_of, kind_of, name_of, without_metadata

Uint8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

# A file is open for reading bytes.
Photo = str | Path | Image.Image | Uint8Array | bytes | bytearray | memoryview | IO[bytes]
Decoded = TypeVar("Decoded")

_CONTENT = (str, os.PathLike, bytes, bytearray, memoryview)
# Kinds that kind_of names and Pillow reads.
_READ = ("PNG", "JPEG", "GIF", "WebP", "BMP")
# Formats that are programs: Pillow would have Ghostscript run them.
_PROGRAMS = ("EPS",)
_BACKGROUND = (255, 255, 255, 255)
_MAX_SIDE_PX = 16384
# Strips up to this long cost little, however narrow.
_NARROW_PX, _MAX_ASPECT = 1024, 8
_PILLOWS_OWN_PIXELS = 1024 * 1024 * 1024 // 4 // 3
# What EXIF's orientation asks for (the TIFF 6.0 specification, tag 274).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_BLOCK_ROWS = 256
_QUOTED = re.compile(r"""b?(["']).*\1""", re.DOTALL)


def load_reference(source: Any) -> Uint8Array:
    """A photo as uint8 RGB [h, w, 3].

    EXIF rotation is applied, transparency lies on white, more than 8 bits are scaled, of an
    animation the first frame counts; damaged metadata is ignored. Raises ReferenceImageError naming
    what cannot be read, and nothing of what it shows.
    """
    name = name_of(source)
    if isinstance(source, np.ndarray):
        check_array(source)
        _check_sides(name, source.shape[1], source.shape[0])
        return source
    if isinstance(source, Image.Image):
        image = source
    elif isinstance(source, _CONTENT) or callable(getattr(source, "read", None)):
        content = content_of(source)
        opened = _decoded(name, content, lambda: _opened(without_metadata(content)))
        if opened is None:
            kind = kind_of(content)
            what = f"is {kind}, which is not read here" if kind else "is no picture that is read"
            if kind in _READ:
                what = f"begins like {kind} and is damaged"
            raise ReferenceImageError(f"{name} {what}; {GIVE}")
        image = opened
    else:
        raise ReferenceImageError(f"{type(source).__name__} is no photo; {GIVE}")
    _check_sides(name, *image.size)
    return _decoded(name, None, lambda: _rgb(image))


def _decoded(name: str, content: bytes | None, decode: Callable[[], Decoded]) -> Decoded:
    """What Pillow makes of a photo; its decoders raise whatever they stumble over."""
    try:
        return decode()
    except Exception as error:
        packages = {factory.__module__.partition(".")[0] for factory, _ in Image.OPEN.values()}
        if not raised_within(error, {"PIL", "numpy", *packages}):
            raise  # such as a time limit of the caller's
        if isinstance(error, ReferenceImageError):
            raise ReferenceImageError(f"{name}: {error}") from error
        kind = kind_of(content) if content is not None else None
        # Pillow's sentences may quote what they stumbled over, or name an object's address.
        sentence = _QUOTED.sub("...", str(error))
        reason = type(error).__name__ if " object at 0x" in sentence else sentence
        raise ReferenceImageError(
            f"{name} cannot be read as a picture ({kind or 'no known format'}: {reason!s:.200}); "
            f"{GIVE}"
        ) from None


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


def _opened(content: bytes) -> Image.Image | None:
    """The picture, not decoded yet; None where no decoder knows the format.

    Image.open itself refuses, by a limit of its own, photos that are within ours.
    """
    Image.init()
    for kind in Image.ID:
        if kind in _PROGRAMS:
            continue
        factory, accept = Image.OPEN[kind]
        if accept is not None and accept(content[:16]) is not True:
            continue
        with suppress(SyntaxError, IndexError, TypeError, struct.error):
            image: Image.Image = factory(io.BytesIO(content), "")
            return image
    return None


def _check_sides(name: str, width: int, height: int) -> None:
    """Bounds what decoding, and padding a narrow strip to a square, may cost."""
    short, long = sorted((width, height))
    if not 0 < short <= long <= _MAX_SIDE_PX:
        raise ReferenceImageError(
            f"{name} is {width}x{height} px; give a photo of 1 to {_MAX_SIDE_PX} px a side, "
            "cropped to the person"
        )
    if long > _NARROW_PX and long > _MAX_ASPECT * short:
        raise ReferenceImageError(
            f"{name} is {width}x{height} px, more than {_MAX_ASPECT} times as long as wide; "
            "crop it to the person"
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit != _PILLOWS_OWN_PIXELS and width * height > limit:
        raise ReferenceImageError(
            f"{name} is {width}x{height} px, more than the {limit} px that this program allows "
            "(PIL.Image.MAX_IMAGE_PIXELS); make it smaller"
        )


def _rgb(image: Image.Image) -> Uint8Array:
    if getattr(image, "is_animated", False):
        image.seek(0)
    image.load()
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, _BACKGROUND), rgba)
    return np.asarray(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; as it is where that is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception as error:
        if not raised_within(error, {"PIL"}):
            raise
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
