"""Scenes under the sky, on a picture 128 units wide and high."""

from __future__ import annotations

import random

from mini.world.canvas import (
    Canvas,
    Color,
    Point,
    blob,
    darker,
    flat,
    glow,
    lighter,
    linear,
    polygon,
    radial,
    stroke,
)
from mini.world.sky import draw_sky


def draw_beach(canvas: Canvas, rng: random.Random, weather: str) -> None:
    draw_sky(canvas, rng, weather)
    sea: dict[str, list[Color]] = {
        "sunny": [(24, 128, 206), (72, 206, 220)],
        "rainy": [(62, 92, 112), (112, 146, 158)],
        "sunset": [(128, 70, 130), (244, 142, 110)],
    }
    canvas.box(0, 56, 128, 100, linear((0, 56), (0, 94), sea[weather]))
    for _ in range(9):
        x, y = rng.uniform(0, 128), rng.uniform(60, 84)
        canvas.line([(x - 7, y), (x, y - 1), (x + 7, y)], stroke((255, 255, 255), 1.0, 0.5))
    sand = blob([(-20, 90), (20, 84), (64, 92), (108, 85), (150, 90), (150, 150), (-20, 150)])
    canvas.path(
        sand, linear((0, 84), (0, 128), [(255, 255, 250), (246, 220, 160), (226, 184, 116)])
    )
    left = rng.random() < 0.5
    with canvas.placed((12 if left else 116, 98), 1.0, mirror=not left):
        canvas.line([(-6, 2), (0, -30), (8, -68)], stroke((122, 78, 46), 5))
        for dx, dy in ((-26, -58), (-18, -84), (10, -94), (34, -80), (34, -56)):
            leaf = blob([(8, -70), ((8 + dx) / 2 - 2, (dy - 76) / 2 - 4), (dx, dy), (dx, dy + 3),
                         ((8 + dx) / 2 + 2, (dy - 62) / 2)])  # fmt: skip
            canvas.path(leaf, flat((30, 136, 72)))


def draw_forest(canvas: Canvas, rng: random.Random, weather: str) -> None:
    draw_sky(canvas, rng, weather)
    far: Color = {"sunny": (84, 156, 98), "rainy": (86, 122, 108), "sunset": (146, 92, 92)}[weather]
    for index in range(9):
        _draw_fir(canvas, (index * 17 + rng.uniform(-5, 5), 92), rng.uniform(62, 84), far)
    canvas.box(0, 86, 128, 128, linear((0, 86), (0, 128), [(66, 128, 60), (28, 72, 40)]))
    near: Color = (20, 92, 52)
    for middle in (4, 24, 104, 124):
        _draw_fir(canvas, (middle + rng.uniform(-4, 4), 112), rng.uniform(84, 104), near)
    for _ in range(3):
        x, y = rng.uniform(6, 122), rng.uniform(110, 122)
        canvas.box(x - 1.4, y, x + 1.4, y + 5, flat((250, 240, 220)), corner=1)
        canvas.path(blob([(x - 6, y + 1), (x - 3, y - 5), (x + 3, y - 5), (x + 6, y + 1)]),
                    flat((222, 48, 40)))  # fmt: skip


def _draw_fir(canvas: Canvas, foot: Point, height: float, color: Color) -> None:
    with canvas.placed(foot, height):
        canvas.box(-0.03, -0.15, 0.03, 0.03, flat((98, 62, 40)))
        for top, bottom, half in ((-0.52, -0.08, 0.2), (-0.76, -0.36, 0.16), (-1.0, -0.62, 0.115)):
            shade = linear((-half, 0), (half, 0), [lighter(color, 0.16), color, darker(color, 0.3)])
            canvas.path(polygon([(0, top), (half, bottom), (-half, bottom)]), shade)


def draw_park(canvas: Canvas, rng: random.Random, weather: str) -> None:
    draw_sky(canvas, rng, weather)
    hill: Color = {"sunny": (126, 204, 92), "rainy": (104, 156, 104), "sunset": (170, 152, 84)}[
        weather
    ]
    canvas.path(blob([(-30, 70), (30, 58), (64, 74), (110, 56), (160, 72), (160, 140), (-30, 140)]),
                flat(hill))  # fmt: skip
    canvas.box(0, 82, 128, 128, linear((0, 82), (0, 128), [hill, darker(hill, 0.35)]))
    for middle in (12, 116):
        x = middle + rng.uniform(-4, 4)
        canvas.box(x - 3, 52, x + 3, 96, flat((126, 84, 52)), corner=1.5)
        crown: Color = {"sunny": (62, 168, 66), "rainy": (66, 128, 86), "sunset": (196, 116, 52)}[
            weather
        ]
        for dx, dy, r in ((-9, 2, 13), (9, 3, 13), (0, -9, 15)):
            paint = radial(
                (x + dx - 4, 44 + dy - 5), r * 1.4, [lighter(crown, 0.35), crown, darker(crown)]
            )
            canvas.oval(x + dx, 44 + dy, r, r, paint)
    for _ in range(12):
        x, y = rng.uniform(2, 126), rng.uniform(92, 126)
        color = rng.choice(((255, 255, 255), (255, 120, 170), (255, 220, 60)))
        canvas.oval(x, y, 2.0, 2.0, flat(color))


def draw_snow(canvas: Canvas, rng: random.Random, weather: str) -> None:
    draw_sky(canvas, rng, weather)
    rock: Color = {"sunny": (104, 128, 172), "snowy": (134, 150, 180), "sunset": (134, 96, 150)}[
        weather
    ]
    for x, height in ((18 + rng.uniform(-8, 8), 60), (110 + rng.uniform(-8, 8), 66), (66, 48)):
        peak = (x, 88 - height)
        shade = linear((x - 20, 0), (x + 24, 0), [lighter(rock, 0.25), darker(rock)])
        canvas.path(polygon([(x - 46, 92), peak, (x + 46, 92)]), shade)
        cap = [peak, (x + 16, peak[1] + 21), (x + 8, peak[1] + 18), (x + 2, peak[1] + 25),
               (x - 6, peak[1] + 17), (x - 14, peak[1] + 21)]  # fmt: skip
        canvas.path(polygon(cap), flat((250, 252, 255)))
    ground = blob([(-30, 86), (24, 78), (70, 88), (110, 78), (160, 88), (160, 150), (-30, 150)])
    canvas.path(ground, linear((0, 80), (0, 128), [(255, 255, 255), (188, 208, 236)]))
    for middle in (8, 120):
        _draw_fir(canvas, (middle + rng.uniform(-5, 5), 104), rng.uniform(40, 54), (66, 122, 112))


def draw_desert(canvas: Canvas, rng: random.Random, weather: str) -> None:
    draw_sky(canvas, rng, weather)
    dune: Color = {"sunny": (244, 178, 92), "sunset": (214, 108, 74)}[weather]
    canvas.path(polygon([(70, 70), (76, 44), (100, 44), (106, 70)]), flat(darker(dune, 0.3)))
    canvas.path(polygon([(14, 70), (18, 52), (40, 52), (44, 70)]), flat(darker(dune, 0.22)))
    for y, share in ((66, 0.0), (82, 0.12), (100, 0.26)):
        shift = rng.uniform(-20, 20)
        wave = [(-40, y + 8), (20 + shift, y - 10), (64 + shift, y + 8), (104 + shift, y - 8),
                (170, y + 6), (170, 150), (-40, 150)]  # fmt: skip
        canvas.path(
            blob(wave), linear((0, y - 8), (0, y + 30), [lighter(dune, 0.22), darker(dune, share)])
        )
    for middle in (14, 112):
        x = middle + rng.uniform(-5, 5)
        top = rng.uniform(46, 56)
        for paint, dx in ((stroke((26, 104, 62), 9), 0.0), (stroke((66, 158, 92), 3), -1.6)):
            canvas.line([(x + dx, 112), (x + dx, top)], paint)
        for side in (-1, 1):
            bend = top + 22 + 5 * side
            arm = [(x, bend), (x + side * 13, bend), (x + side * 13, bend - 17)]
            canvas.line(arm, stroke((26, 104, 62), 5.5))


def draw_city(canvas: Canvas, rng: random.Random, weather: str) -> None:
    colors: list[Color] = [(12, 14, 46), (52, 44, 108), (120, 66, 134)]
    canvas.box(0, 0, 128, 128, linear((0, 0), (0, 100), colors))
    if weather == "none":
        for _ in range(26):
            radius = rng.uniform(0.5, 1.0)
            canvas.oval(
                rng.uniform(0, 128), rng.uniform(0, 40), radius, radius, flat((255, 255, 240))
            )
        canvas.oval(20, 17, 24, 24, glow((20, 17), 24, (255, 250, 200), 0.6))
        canvas.oval(20, 17, 8, 8, flat((255, 248, 208)))
    for layer, color in enumerate(((46, 46, 98), (24, 26, 62))):
        left = -4.0
        while left < 128:
            width, top = rng.uniform(16, 23), rng.uniform(16, 52) + 18 * layer
            canvas.box(left, top, left + width, 128, flat(color))
            for row in range(int((112 - top) // 8)):
                for column in range(int(width // 6)):
                    if rng.random() < 0.62:
                        x, y = left + 2.4 + column * 6, top + 4 + row * 8
                        light = rng.choice(((255, 214, 96), (255, 236, 170), (120, 220, 255)))
                        canvas.box(x, y, x + 3, y + 4.4, flat(light, 0.95))
            left += width + 1
    canvas.box(0, 110, 128, 128, linear((0, 110), (0, 128), [(40, 40, 70), (16, 16, 34)]))


def draw_moon(canvas: Canvas, rng: random.Random, weather: str) -> None:
    canvas.box(0, 0, 128, 128, linear((0, 0), (0, 90), [(6, 6, 20), (22, 16, 52)]))
    for _ in range(46):
        radius = rng.uniform(0.5, 1.2)
        canvas.oval(rng.uniform(0, 128), rng.uniform(0, 90), radius, radius, flat((255, 255, 255)))
    x, y = rng.choice((rng.uniform(14, 26), rng.uniform(102, 114))), rng.uniform(18, 26)
    canvas.oval(x, y, 26, 26, glow((x, y), 26, (90, 160, 255), 0.5))
    canvas.oval(
        x, y, 14, 14, radial((x - 5, y - 5), 22, [(120, 200, 255), (34, 110, 220), (10, 30, 90)])
    )
    for dx, dy, rx, ry in ((-4, -4, 5, 3.5), (4, 3, 5, 4), (-5, 6, 3, 2)):
        canvas.oval(x + dx, y + dy, rx, ry, flat((70, 180, 96)))
    ground = blob([(-40, 96), (20, 82), (64, 88), (108, 82), (170, 96), (170, 160), (-40, 160)])
    canvas.path(ground, linear((0, 82), (0, 128), [(212, 212, 220), (120, 120, 136)]))
    for _ in range(7):
        x, y, radius = rng.uniform(0, 128), rng.uniform(94, 124), rng.uniform(4, 9)
        canvas.oval(x, y, radius, radius * 0.42, flat((104, 104, 122)))
        canvas.oval(x, y + 1.1, radius * 0.86, radius * 0.3, flat((164, 164, 178)))
