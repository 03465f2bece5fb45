"""Reference photos: a person's head and shoulders in other light, crop and background."""

from __future__ import annotations

import random

import numpy as np

from mini.world.body import draw_person
from mini.world.canvas import (
    Canvas,
    Color,
    Layer,
    Pixels,
    as_pixels,
    darker,
    flat,
    lighter,
    linear,
    radial,
)
from mini.world.look import Look

PORTRAIT_PX = 128
_BACKDROPS: tuple[Color, ...] = (
    (196, 214, 226), (244, 222, 204), (206, 222, 190), (222, 206, 232), (250, 232, 178),
    (120, 140, 168), (150, 116, 106), (108, 140, 128), (240, 240, 244), (88, 84, 104),
)  # fmt: skip


def draw_portrait(look: Look, rng: random.Random, *, side_px: int = PORTRAIT_PX) -> Pixels:
    """A photo of the person, [side, side, 3] uint8: rng chooses light, crop and background."""
    unit = side_px / 128
    color = rng.choice(_BACKDROPS)
    canvas = Canvas(side_px)
    with canvas.placed((0, 0), unit):
        x, y = rng.uniform(20, 108), rng.uniform(10, 60)
        canvas.box(0, 0, 128, 128, radial((x, y), 130, [lighter(color, 0.35), darker(color, 0.25)]))
        if rng.random() < 0.4:
            left = rng.uniform(-20, 90)
            frame = linear((left, 0), (left + 60, 60), [lighter(color, 0.6), darker(color, 0.1)])
            canvas.box(left, 8, left + 48, 56, flat(darker(color, 0.4)), corner=2)
            canvas.box(left + 3, 11, left + 45, 53, frame)
    size = rng.uniform(26, 31)
    with canvas.placed(
        ((64 + rng.uniform(-7, 7)) * unit, (50 + rng.uniform(-4, 5)) * unit),
        size * unit,
        tilt_degrees=rng.uniform(-6, 6),
        mirror=rng.random() < 0.5,
    ):
        draw_person(canvas, look, "standing")
    return as_pixels(_lit(canvas.layer()[..., :3], rng))


def _lit(picture: Layer, rng: random.Random) -> Layer:
    """Brighter or darker, warmer or cooler, and lit from one side."""
    side = picture.shape[0]
    exposure, warmth = rng.uniform(0.86, 1.1), rng.uniform(-0.05, 0.05)
    slope = rng.uniform(-0.14, 0.14)
    across = 1 + slope * np.linspace(-1, 1, side, dtype=np.float32)[None, :, None]
    tint = np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    lit: Layer = picture * across * (exposure * tint)
    return lit
