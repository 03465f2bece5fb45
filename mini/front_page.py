"""Draws the README's contact sheet: references, prompt, result and saliency.

python -m mini.front_page [--bundle BUNDLE] [--out docs/front.png]
"""

from __future__ import annotations

import argparse
import random
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from engines.cli.parser import command_parser
from mini.ship import HER, HIM, REFERENCE_PX
from mini.world import Look, draw_portrait, random_look
from runtime import FaceDiffuser, Request

_CELL_PX, _GAP_PX, _TEXT_PX = 256, 8, 84
_COLUMNS = ("references", "result", "TDM saliency", "SDM saliency", "mask: SDM in white")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row: a prompt, who the people are, and the seed."""

    prompt: str
    looks: tuple[Look, ...]
    seed: int


def examples() -> list[Example]:
    """Rows of people whom training never saw."""
    others = [random_look(random.Random(f"front {number}"), held_out=True) for number in range(3)]
    first, second, third = others
    return [
        Example(prompt="a man <|image|> and a woman <|image|> in a park", looks=(HIM, HER), seed=0),
        Example(prompt="a woman <|image|> waving on a beach at sunset", looks=(HER,), seed=1),
        Example(
            prompt=f"a {first.kind} <|image|> and a {second.kind} <|image|> cheering on a stage",
            looks=(first, second),
            seed=2,
        ),
        Example(prompt=f"a {third.kind} <|image|> reading on the moon", looks=(third,), seed=3),
    ]


def drawn_row(face_diffuser: FaceDiffuser, example: Example) -> Image.Image:
    """References, result, both models' mean saliency over the fusion steps, and the last mask."""
    photos = [
        Image.fromarray(draw_portrait(look, random.Random(place + 1), side_px=REFERENCE_PX))
        for place, look in enumerate(example.looks)
    ]
    request = Request(prompt=example.prompt, references=photos, seed=example.seed, saliency=True)
    result = face_diffuser.generate(request)
    seen = [step.saliency for step in result.saliency or ()]
    maps = [np.mean([getattr(each, name)[0] for each in seen], axis=0) for name in ("tdm", "sdm")]
    cells = [_side_by_side(photos), _fitted(result.images[0]), *map(_heat, maps)]
    cells.append(_heat(seen[-1].mask[0].astype(np.float64)))
    row = Image.new("RGB", _sheet_size(1), "white")
    for place, cell in enumerate(cells):
        row.paste(cell, (place * (_CELL_PX + _GAP_PX), 0))
    return row


def contact_sheet(rows: list[tuple[str, Image.Image]]) -> Image.Image:
    """The rows below each other, each above its prompt."""
    width, height = _sheet_size(1)
    step = height + _TEXT_PX // 2
    sheet = Image.new("RGB", (width, _TEXT_PX // 2 + step * len(rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for place, title in enumerate(_COLUMNS):
        draw.text((place * (_CELL_PX + _GAP_PX) + 4, 8), title, "black", font)
    for number, (prompt, row) in enumerate(rows):
        top = _TEXT_PX // 2 + number * step
        sheet.paste(row, (0, top))
        draw.text((4, top + height + 6), textwrap.shorten(prompt, 100), "black", font)
    return sheet


def _sheet_size(rows: int) -> tuple[int, int]:
    return len(_COLUMNS) * (_CELL_PX + _GAP_PX) - _GAP_PX, rows * _CELL_PX


def _side_by_side(photos: list[Image.Image]) -> Image.Image:
    cell = Image.new("RGB", (_CELL_PX, _CELL_PX), "white")
    side = _CELL_PX // len(photos)
    for place, photo in enumerate(photos):
        cell.paste(
            photo.resize((side, side), Image.Resampling.LANCZOS),
            (place * side, (_CELL_PX - side) // 2),
        )
    return cell


def _fitted(picture: Any) -> Image.Image:
    fitted: Image.Image = picture.resize((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS)
    return fitted


def _heat(shown: npt.NDArray[np.floating]) -> Image.Image:
    """A map [h, w] from black at its smallest value over orange to white at its largest."""
    share = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-9)
    colors = np.stack([np.clip(share * limit, 0, 1) for limit in (2.4, 1.4, 1.0)], axis=-1)
    image = Image.fromarray(np.round(colors * 255).astype(np.uint8))
    return image.resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST)


def parser() -> argparse.ArgumentParser:
    flags = command_parser("mini.front_page", __doc__, ["--bundle", "bundle"])
    flags.add_argument("--bundle", type=Path, default=Path("bundle"), help="what draws")
    flags.add_argument("--out", type=Path, default=Path("docs/front.png"), help="picture to write")
    return flags


def main() -> None:
    """The sheet as one file."""
    options = parser().parse_args()
    with FaceDiffuser.open(options.bundle) as face_diffuser:
        rows = [(example.prompt, drawn_row(face_diffuser, example)) for example in examples()]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
