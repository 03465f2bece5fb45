"""Scenes under a roof, on a picture 128 units wide and high."""

from __future__ import annotations

import random

from mini.world.canvas import (
    Canvas,
    Color,
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


def draw_kitchen(canvas: Canvas, rng: random.Random, weather: str) -> None:
    wall: Color = (252, 226, 176)
    canvas.box(0, 0, 128, 128, linear((0, 0), (0, 128), [lighter(wall, 0.4), wall]))
    for row in range(3):
        for column in range(12):
            left, top = column * 11 - 2, 46 + row * 11
            canvas.box(left, top, left + 10, top + 10, flat((176, 222, 218)), corner=1)
    for left in (-4, 96):
        canvas.box(left, -4, left + 36, 40, flat((92, 168, 160)), corner=2)
        canvas.box(left + 4, 0, left + 32, 36, flat((118, 192, 182)), corner=2)
        canvas.oval(left + (29 if left < 0 else 7), 26, 1.8, 1.8, flat((250, 240, 210)))
    canvas.box(38, 4, 90, 40, flat((255, 255, 255)), corner=2)
    canvas.box(41, 7, 87, 37, linear((0, 7), (0, 37), [(120, 196, 250), (216, 240, 255)]))
    canvas.box(63, 5, 65, 39, flat((255, 255, 255)))
    canvas.box(0, 84, 128, 90, flat((150, 96, 62)))
    canvas.box(0, 90, 128, 128, linear((0, 90), (0, 128), [(118, 192, 182), (70, 136, 130)]))
    for x in (32, 64, 96):
        canvas.line([(x, 92), (x, 128)], stroke((70, 136, 130), 1.4))
    pot_x = 14 + rng.uniform(-4, 4)
    canvas.box(pot_x - 9, 70, pot_x + 9, 84, linear((pot_x - 9, 0), (pot_x + 9, 0),
               [(250, 130, 110), (214, 60, 56), (150, 36, 40)]), corner=2)  # fmt: skip
    canvas.box(pot_x - 10, 68, pot_x + 10, 71, flat((120, 30, 36)), corner=1.4)
    fruit_x = 112 + rng.uniform(-4, 4)
    for dx, color in ((-5, (250, 190, 40)), (5, (236, 70, 50)), (0, (110, 190, 70))):
        canvas.oval(fruit_x + dx, 77 - (4 if dx == 0 else 0), 5, 5, flat(color))
    bowl = [(fruit_x - 13, 78), (fruit_x + 13, 78), (fruit_x + 8, 86), (fruit_x - 8, 86)]
    canvas.path(blob(bowl), flat((245, 245, 250)))


def draw_stage(canvas: Canvas, rng: random.Random, weather: str) -> None:
    canvas.box(0, 0, 128, 128, radial((64, 60), 96, [(96, 40, 120), (30, 12, 54)]))
    for middle in (24, 64, 104):
        x = middle + rng.uniform(-6, 6)
        color = rng.choice(((255, 230, 120), (120, 230, 255), (255, 130, 220)))
        lean = (64 - x) * 0.4
        beam = polygon([(x - 3, -2), (x + 3, -2), (x + lean + 24, 112), (x + lean - 24, 112)])
        canvas.path(beam, flat(color, 0.24, blur=1.2))
        canvas.oval(x, 2, 7, 7, flat(color, 0.95, blur=1))
    red: Color = (196, 24, 48)
    for side in (0, 1):
        with canvas.placed((128 * side, 0), 1.0, mirror=bool(side)):
            curtain = blob([(-20, -20), (30, -20), (20, 50), (10, 84), (18, 130), (-20, 140)])
            canvas.path(
                curtain, linear((0, 0), (24, 0), [lighter(red, 0.15), darker(red, 0.35), red])
            )
            for x in (4, 12):
                canvas.line([(x + 5, -4), (x, 60), (x, 128)], stroke(darker(red, 0.55), 2.4, 0.8))
    for index in range(9):
        canvas.oval(index * 16, -1, 10.5, 11, flat(darker(red, 0.12) if index % 2 else red))
    canvas.box(0, 104, 128, 128, linear((0, 104), (0, 128), [(232, 168, 96), (150, 88, 46)]))
    for index in range(9):
        canvas.line([(64 + (index - 4) * 15, 104), (64 + (index - 4) * 26, 128)],
                    stroke((124, 70, 36), 0.9))  # fmt: skip
    canvas.oval(64, 112, 54, 12, glow((64, 112), 54, (255, 250, 200), 0.5))


def draw_library(canvas: Canvas, rng: random.Random, weather: str) -> None:
    wood: Color = (120, 74, 44)
    canvas.box(0, 0, 128, 128, linear((0, 0), (0, 128), [wood, darker(wood, 0.4)]))
    books: tuple[Color, ...] = (
        (190, 52, 48), (40, 92, 140), (228, 178, 74), (58, 122, 84), (124, 70, 132),
        (232, 220, 196), (214, 112, 54),
    )  # fmt: skip
    for shelf in range(5):
        top = shelf * 26 - 8
        canvas.box(0, top, 128, top + 22, flat(darker(wood, 0.55)))
        left = 1.0 - rng.uniform(0, 4)
        while left < 128:
            width, height = rng.uniform(4.5, 7), rng.uniform(15, 20)
            color = rng.choice(books)
            shade = linear((left, 0), (left + width, 0), [lighter(color, 0.18), darker(color, 0.2)])
            canvas.box(left, top + 22 - height, left + width - 0.5, top + 22, shade, corner=0.7)
            canvas.box(left, top + 22 - height * 0.75, left + width - 0.5, top + 24 - height * 0.75,
                       flat((250, 226, 150), 0.85))  # fmt: skip
            left += width
        canvas.box(0, top + 22, 128, top + 26, linear((0, top + 22), (0, top + 26),
                   [lighter(wood, 0.25), darker(wood, 0.2)]))  # fmt: skip
    lamp_x = rng.choice((20, 108))
    canvas.oval(lamp_x, 14, 40, 40, glow((lamp_x, 14), 40, (255, 226, 140), 0.75))
    canvas.path(blob([(lamp_x - 6, 0), (lamp_x + 6, 0), (lamp_x + 14, 16), (lamp_x - 14, 16)]),
                flat((60, 140, 96)))  # fmt: skip
    canvas.oval(lamp_x, 14, 7, 2.6, flat((255, 246, 200)))
