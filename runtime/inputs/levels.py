"""Grey levels of pictures with more than 8 bits, brought to 0 to 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engines.errors import ReferenceImageError

# Whites of the pictures there are: 8, 10, 12, 16 bits, and whole 32 ones.
_INTEGER_WHITES = (255, 1023, 4095, 65535, 2**31 - 1, 2**32 - 1)
# The levels that floats count white by, and how high they may reach then.
_FLOAT_WHITES = ((1, 1), (255, 510), (65535, 131070))
# A picture whose lightest level lies below this share of white would look black.
_DARKEST = 1 / 64
# Tags of TIFF 6.0.
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _WITHOUT_SIGN = 258, 339, 1


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture of Pillow's modes I, I;16 or F as mode L.

    White is what the file says (a TIFF's bits per sample); else the smallest of the usual whites
    that no level exceeds, by up to a factor of two for floats, whose highlights may lie above.
    Holes (NaN) are black. Raises ReferenceImageError where that would give a black picture.
    """
    levels: npt.NDArray[np.float64] = np.asarray(image).astype(np.float64)
    is_tiff = hasattr(image, "tag_v2")
    if image.mode == "I" and is_tiff and _tag(image, _SAMPLE_FORMAT) in (None, _WITHOUT_SIGN):
        levels %= 2**32  # which Pillow reads as if they had a sign
    if not np.isfinite(levels).any():
        raise ReferenceImageError("a photo without one finite level is no photo")
    levels = np.nan_to_num(levels, posinf=np.inf, neginf=0)
    most = float(levels[np.isfinite(levels)].max())
    white = _white_of_file(image) or _white(most, is_float=image.mode == "F")
    if (least := float(levels.min())) < -_DARKEST * (white or 0) or most < 0:
        raise ReferenceImageError(
            f"its levels go from {least:g} to {most:g}, which is below black; "
            "convert it to 8 or 16 bits"
        )
    if white is None or (most > 0 and white > 255 and most < white * _DARKEST):
        raise ReferenceImageError(
            f"its levels reach {most:g}, which is white at no usual depth; "
            "convert it to 8 or 16 bits"
        )
    scaled = np.clip(np.rint(levels * (255 / white)), 0, 255)
    return Image.fromarray(scaled.astype(np.uint8))


def _white(most: float, *, is_float: bool) -> int | None:
    if not is_float:
        return next((white for white in _INTEGER_WHITES if most <= white), None)
    if 0 < most < 1 / 255:
        return None
    return next((white for white, highlights in _FLOAT_WHITES if most <= highlights), None)


def _white_of_file(image: Image.Image) -> int | None:
    """The white of a TIFF with 9 to 15 bits a sample."""
    bits = _tag(image, _BITS_PER_SAMPLE)
    return int(2**bits - 1) if isinstance(bits, int) and 8 < bits < 16 else None


def _tag(image: Image.Image, number: int) -> Any:
    """One value that a TIFF says of its single channel; None for other files."""
    tags: Any = getattr(image, "tag_v2", None)
    value = tags.get(number) if tags is not None else None
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value
