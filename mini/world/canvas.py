"""Shaded, anti-aliased shapes on a skia canvas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import skia

Color = tuple[int, int, int]
Point = tuple[float, float]
Pixels = npt.NDArray[np.uint8]
Layer = npt.NDArray[np.float32]

WHITE: Color = (255, 255, 255)
BLACK: Color = (18, 16, 24)


def mixed(color: Color, other: Color, share: float) -> Color:
    """A color moved toward another by a share from 0 to 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def darker(color: Color, share: float = 0.25) -> Color:
    """Toward a cool black, as a shadow is."""
    return mixed(color, (28, 18, 48), share)


def lighter(color: Color, share: float = 0.25) -> Color:
    """Toward a warm white, as a highlight is."""
    return mixed(color, (255, 252, 240), share)


def flat(color: Color, alpha: float = 1.0, *, blur: float = 0.0) -> skia.Paint:
    """One color; alpha from 0 to 1; blur is the edge's softness in the canvas's units."""
    paint = skia.Paint(AntiAlias=True, Color=_argb(color, alpha))
    if blur:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    return paint


def radial(center: Point, radius: float, colors: Sequence[Color]) -> skia.Paint:
    """From the first color at the center to the last at the radius."""
    stops = [_argb(color, 1.0) for color in colors]
    return skia.Paint(AntiAlias=True, Shader=skia.GradientShader.MakeRadial(center, radius, stops))


def glow(center: Point, radius: float, color: Color, alpha: float) -> skia.Paint:
    """A color that fades to nothing at the radius."""
    stops = [_argb(color, alpha), _argb(color, 0.0)]
    return skia.Paint(AntiAlias=True, Shader=skia.GradientShader.MakeRadial(center, radius, stops))


def linear(start: Point, end: Point, colors: Sequence[Color]) -> skia.Paint:
    """From the first color at start to the last at end."""
    stops = [_argb(color, 1.0) for color in colors]
    return skia.Paint(AntiAlias=True, Shader=skia.GradientShader.MakeLinear([start, end], stops))


def stroke(color: Color, width: float, alpha: float = 1.0) -> skia.Paint:
    """A line with round ends and corners."""
    return skia.Paint(
        AntiAlias=True,
        Color=_argb(color, alpha),
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=width,
        StrokeCap=skia.Paint.kRound_Cap,
        StrokeJoin=skia.Paint.kRound_Join,
    )


class Canvas:
    """A transparent square picture on which shapes are put; y points down."""

    def __init__(self, side_px: int) -> None:
        self._array: Pixels = np.zeros((side_px, side_px, 4), np.uint8)
        self._surface = skia.Surface(self._array)
        self._canvas = self._surface.getCanvas()

    def pixels(self) -> Pixels:
        """What was drawn: [side, side, 4] uint8 RGBA, premultiplied by alpha."""
        self._surface.flushAndSubmit()
        return self._array.copy()

    def layer(self) -> Layer:
        """The same in [0, 1]: [side, side, 4] float32."""
        return unit_range(self.pixels())

    @contextmanager
    def placed(
        self, center: Point, scale: float, *, mirror: bool = False, tilt_degrees: float = 0.0
    ) -> Iterator[None]:
        """Shapes drawn inside have their origin at center and so many px per unit."""
        self._canvas.save()
        self._canvas.translate(*center)
        self._canvas.rotate(tilt_degrees)
        self._canvas.scale(-scale if mirror else scale, scale)
        yield
        self._canvas.restore()

    @contextmanager
    def clipped(self, path: skia.Path) -> Iterator[None]:
        """Shapes drawn inside show only within the path."""
        self._canvas.save()
        self._canvas.clipPath(path, doAntiAlias=True)
        yield
        self._canvas.restore()

    def oval(self, x: float, y: float, rx: float, ry: float, paint: skia.Paint) -> None:
        self._canvas.drawOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry), paint)

    def box(
        self, left: float, top: float, right: float, bottom: float, paint: skia.Paint,
        *, corner: float = 0.0,
    ) -> None:  # fmt: skip
        rect = skia.Rect.MakeLTRB(left, top, right, bottom)
        self._canvas.drawRoundRect(rect, corner, corner, paint)

    def line(self, points: Sequence[Point], paint: skia.Paint) -> None:
        """An open line whose corners are rounded."""
        self._canvas.drawPath(curve(points), paint)

    def path(self, path: skia.Path, paint: skia.Paint) -> None:
        self._canvas.drawPath(path, paint)


def unit_range(pixels: Pixels) -> Layer:
    """uint8 -> float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def as_pixels(picture: Layer) -> Pixels:
    """[0, 1] -> uint8; what lies outside is cut off."""
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def polygon(points: Sequence[Point]) -> skia.Path:
    """A closed shape with straight sides."""
    path = skia.Path()
    path.addPoly([skia.Point(*point) for point in points], close=True)
    return path


def blob(points: Sequence[Point]) -> skia.Path:
    """A closed smooth shape: the points pull its outline, which passes midway between them."""
    path = skia.Path()
    middle = [_midway(a, b) for a, b in zip(points, [*points[1:], points[0]], strict=True)]
    path.moveTo(*middle[-1])
    for point, end in zip(points, middle, strict=True):
        path.quadTo(*point, *end)
    path.close()
    return path


def curve(points: Sequence[Point]) -> skia.Path:
    """An open smooth line from the first point to the last."""
    path = skia.Path()
    path.moveTo(*points[0])
    for point, after in itertools.pairwise(points[1:]):
        path.quadTo(*point, *(after if after is points[-1] else _midway(point, after)))
    if len(points) == 2:
        path.lineTo(*points[1])
    return path


def oval_path(x: float, y: float, rx: float, ry: float) -> skia.Path:
    """An ellipse as a path, for clipping."""
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry))
    return path


def _midway(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _argb(color: Color, alpha: float) -> int:
    red, green, blue = color
    return (round(alpha * 255) << 24) | (red << 16) | (green << 8) | blue
