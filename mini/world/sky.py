"""Skies and weather, on a picture 128 units wide and high."""

from __future__ import annotations

import random

from mini.world.canvas import Canvas, Color, Point, blob, flat, glow, linear, stroke

_SKIES: dict[str, list[Color]] = {
    "sunny": [(70, 160, 246), (190, 228, 255)],
    "rainy": [(96, 110, 132), (176, 188, 200)],
    "sunset": [(92, 58, 140), (244, 112, 96), (255, 206, 120)],
    "snowy": [(150, 172, 202), (226, 234, 244)],
}


def draw_sky(canvas: Canvas, rng: random.Random, weather: str) -> None:
    """The whole picture filled with sky."""
    canvas.box(0, 0, 128, 128, linear((0, 0), (0, 84), _SKIES[weather]))
    match weather:
        case "sunny":
            x, y = rng.choice((rng.uniform(8, 30), rng.uniform(98, 120))), rng.uniform(10, 20)
            canvas.oval(x, y, 34, 34, glow((x, y), 34, (255, 250, 190), 0.9))
            canvas.oval(x, y, 8.5, 8.5, flat((255, 240, 120)))
            for _ in range(2):
                draw_cloud(canvas, (rng.uniform(0, 128), rng.uniform(8, 40)), (255, 255, 255))
        case "sunset":
            x, y = rng.choice((rng.uniform(10, 32), rng.uniform(96, 118))), rng.uniform(44, 60)
            canvas.oval(x, y, 48, 48, glow((x, y), 48, (255, 230, 140), 0.9))
            canvas.oval(x, y, 11, 11, flat((255, 236, 150)))
        case "rainy":
            for _ in range(4):
                draw_cloud(canvas, (rng.uniform(0, 128), rng.uniform(2, 24)), (128, 138, 156))
        case "snowy":
            for _ in range(2):
                draw_cloud(canvas, (rng.uniform(0, 128), rng.uniform(4, 26)), (236, 242, 250))


def draw_cloud(canvas: Canvas, center: Point, color: Color) -> None:
    """A flat-bottomed cloud about 36 wide."""
    outline = [(-20, 4), (-16, -4), (-8, -3), (-3, -11), (7, -9), (10, -2), (18, -3), (20, 4)]
    with canvas.placed(center, 1.0):
        canvas.path(blob(outline), flat(color, 0.9, blur=0.8))


def draw_rain(canvas: Canvas, rng: random.Random) -> None:
    """Slanted streaks in front of everything."""
    for _ in range(34):
        x, y, length = rng.uniform(-4, 132), rng.uniform(-8, 128), rng.uniform(7, 12)
        canvas.line([(x, y), (x - length * 0.3, y + length)], stroke((214, 232, 255), 1.1, 0.7))


def draw_snowfall(canvas: Canvas, rng: random.Random) -> None:
    """Flakes in front of everything."""
    for _ in range(36):
        x, y, radius = rng.uniform(0, 128), rng.uniform(0, 128), rng.uniform(1.1, 2.1)
        canvas.oval(x, y, radius, radius, flat((255, 255, 255), 0.95))
