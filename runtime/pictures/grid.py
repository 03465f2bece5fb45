"""Several pictures as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from engines.errors import RequestError


def grid(
    pictures: Sequence[Image.Image],
    *,
    columns: int | None = None,
    gap_px: int = 4,
    background: str = "white",
) -> Image.Image:
    """Lay pictures of one size out in rows, in order; the last row may be shorter.

    columns: by default as many as make the grid nearly square. gap_px: between pictures.
    background: any color name or #rrggbb of Pillow's. Raises RequestError for no pictures, for
    sizes that differ and for numbers that lay out nothing.
    """
    if not pictures:
        raise RequestError("a grid needs one picture or more, got none")
    columns = math.ceil(math.sqrt(len(pictures))) if columns is None else columns
    if columns < 1 or gap_px < 0:
        raise RequestError(
            f"a grid needs columns from 1 and gap_px from 0, got columns={columns}, gap_px={gap_px}"
        )
    width, height = pictures[0].size
    for number, picture in enumerate(pictures):
        if picture.size != (width, height):
            raise RequestError(
                f"a grid's pictures must have one size: picture 0 has {width}x{height} px, "
                f"picture {number} has {picture.width}x{picture.height}; resize it first"
            )
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    size = (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px)
    sheet = Image.new("RGB", size, background)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet.paste(picture, (column * (width + gap_px), row * (height + gap_px)))
    return sheet
