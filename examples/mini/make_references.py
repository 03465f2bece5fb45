"""Draws the two reference portraits of the examples: examples/references/him.png and her.png.

python examples/mini/make_references.py [FOLDER]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIDE_PX = 256
# Drawn larger and reduced, which smooths the edges.
SCALE = 4

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """The colors and features of one face."""

    backdrop: tuple[Color, Color]
    skin: Color
    hair: Color
    clothes: Color
    eyes: Color
    lips: Color
    cheeks: Color
    long_hair: bool
    beard: bool


HIM = Portrait(
    backdrop=((196, 214, 224), (128, 158, 178)),
    skin=(224, 178, 146),
    hair=(74, 50, 36),
    clothes=(52, 84, 122),
    eyes=(74, 104, 84),
    lips=(176, 104, 92),
    cheeks=(224, 170, 140),
    long_hair=False,
    beard=True,
)
HER = Portrait(
    backdrop=((244, 222, 204), (214, 170, 150)),
    skin=(206, 152, 116),
    hair=(38, 28, 30),
    clothes=(150, 52, 66),
    eyes=(84, 54, 36),
    lips=(178, 64, 72),
    cheeks=(210, 140, 110),
    long_hair=True,
    beard=False,
)


class Canvas:
    """A picture on which soft-shaded shapes are put; coordinates in pixels of the result."""

    def __init__(self, top: Color, bottom: Color) -> None:
        side = SIDE_PX * SCALE
        down = Image.linear_gradient("L").resize((side, side))
        self.image = Image.composite(_plain(bottom), _plain(top), down)

    def ellipse(self, box: Box, color: Color, *, shade: float = 0.0, soft: float = 0.0) -> None:
        """An ellipse, darker to the lower right by shade, with edges soft by so many pixels."""
        mask = _mask()
        ImageDraw.Draw(mask).ellipse(_scaled(box), fill=255)
        self._put(mask, box, color, shade, soft)

    def rounded(self, box: Box, radius: float, color: Color, *, shade: float = 0.0) -> None:
        """A rectangle with round corners."""
        mask = _mask()
        ImageDraw.Draw(mask).rounded_rectangle(_scaled(box), radius * SCALE, fill=255)
        self._put(mask, box, color, shade, 0.0)

    def arc(self, box: Box, start: float, end: float, color: Color, width: float) -> None:
        """Part of an ellipse's outline, between two angles in degrees."""
        draw = ImageDraw.Draw(self.image)
        draw.arc(_scaled(box), start, end, fill=color, width=round(width * SCALE))

    def cut(self, box: Box, hole: Box, color: Color, *, shade: float = 0.0) -> None:
        """An ellipse less another one."""
        mask, less = _mask(), _mask()
        ImageDraw.Draw(mask).ellipse(_scaled(box), fill=255)
        ImageDraw.Draw(less).ellipse(_scaled(hole), fill=255)
        self._put(ImageChops.subtract(mask, less), box, color, shade, 0.6)

    def reduced(self) -> Image.Image:
        """The finished picture at its own size."""
        return self.image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)

    def _put(self, mask: Image.Image, box: Box, color: Color, shade: float, soft: float) -> None:
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft * SCALE))
        left, top, right, bottom = _scaled(box)
        # Bright at the upper left of the shape, dark toward its lower right.
        glow = ImageChops.invert(Image.radial_gradient("L"))
        glow = glow.resize((round((right - left) * 1.5) + 1, round((bottom - top) * 1.5) + 1))
        light = _mask()
        light.paste(glow, (round(left - (right - left) * 0.4), round(top - (bottom - top) * 0.4)))
        dark = tuple(round(channel * (1 - shade)) for channel in color)
        filled = Image.composite(_plain(color), _plain((dark[0], dark[1], dark[2])), light)
        self.image.paste(filled, mask=mask)


def draw(portrait: Portrait) -> Image.Image:
    """A head and shoulders."""
    p = portrait
    canvas = Canvas(*p.backdrop)
    if p.long_hair:
        canvas.rounded((58, 58, 198, 214), 62, p.hair, shade=0.3)
    canvas.rounded((32, 200, 224, 320), 58, p.clothes, shade=0.45)
    canvas.rounded((106, 170, 150, 222), 20, _darker(p.skin, 0.16), shade=0.2)
    canvas.ellipse((98, 198, 158, 230), _darker(p.skin, 0.08), shade=0.25)
    for left in (66, 174):
        canvas.ellipse((left, 108, left + 17, 142), _darker(p.skin, 0.1), shade=0.25)
    canvas.ellipse((73, 46, 183, 192), p.skin, shade=0.32)
    for left in (84, 142):
        canvas.ellipse(
            (left, 136, left + 30, 158), (222, 118, 104) if p.long_hair else p.skin, soft=7
        )
    if p.beard:
        canvas.cut((72, 86, 184, 198), (82, 64, 174, 160), p.hair, shade=0.25)
        canvas.ellipse((106, 148, 150, 158), p.hair, soft=1.5)
        canvas.cut((68, 34, 188, 140), (77, 74, 191, 190), p.hair, shade=0.3)
    else:
        canvas.cut((64, 36, 192, 190), (84, 76, 196, 236), p.hair, shade=0.3)
        canvas.cut((64, 36, 192, 176), (44, 84, 178, 240), p.hair, shade=0.3)
    for center in (105, 151):
        _eye(canvas, p, center)
    canvas.ellipse((120, 128, 136, 150), _darker(p.skin, 0.14), soft=3)
    canvas.ellipse((121, 122, 131, 143), _lighter(p.skin, 0.16), soft=3)
    canvas.arc((118, 135, 138, 150), 30, 150, _darker(p.skin, 0.32), 1.6)
    canvas.ellipse((109, 157, 147, 172), p.lips, shade=0.3, soft=0.6)
    canvas.arc((106, 144, 150, 167), 28, 152, _darker(p.lips, 0.4), 1.8)
    return canvas.reduced()


def _eye(canvas: Canvas, portrait: Portrait, center: float) -> None:
    canvas.ellipse((center - 14, 110, center + 14, 127), _darker(portrait.skin, 0.15), soft=3)
    canvas.ellipse((center - 11, 111, center + 11, 125), (246, 242, 238))
    canvas.ellipse((center - 6.5, 111.5, center + 6.5, 124.5), portrait.eyes)
    canvas.ellipse((center - 3, 115, center + 3, 121), (20, 16, 16))
    canvas.ellipse((center + 0.5, 113.5, center + 3.5, 116.5), (255, 255, 255))
    canvas.arc((center - 12, 109, center + 12, 129), 195, 345, _darker(portrait.hair, 0.2), 2.4)
    canvas.arc((center - 17, 97, center + 17, 121), 215, 325, portrait.hair, 4.0)


def _plain(color: Color) -> Image.Image:
    return Image.new("RGB", (SIDE_PX * SCALE, SIDE_PX * SCALE), color)


def _mask() -> Image.Image:
    return Image.new("L", (SIDE_PX * SCALE, SIDE_PX * SCALE), 0)


def _scaled(box: Box) -> Box:
    left, top, right, bottom = (edge * SCALE for edge in box)
    return left, top, right, bottom


def _darker(color: Color, share: float) -> Color:
    red, green, blue = (round(channel * (1 - share)) for channel in color)
    return red, green, blue


def _lighter(color: Color, share: float) -> Color:
    red, green, blue = (round(channel + (255 - channel) * share) for channel in color)
    return red, green, blue


def main(folder: Path) -> None:
    """Writes both portraits."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(HIM).save(folder / "him.png", optimize=True)
    draw(HER).save(folder / "her.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parents[1] / "references")
