"""How a picture is finished: plain, comic or watercolor."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageFilter

from mini.world.canvas import Layer, Pixels, unit_range

STYLES = ("plain", "comic", "watercolor")


def styled(
    style: str, background: Layer, people: list[Layer], weather: Layer, rng: random.Random
) -> Layer:
    """One picture [h, w, 3] in [0, 1] of a background, people [h, w, 4] and the weather in front.

    People and weather are premultiplied by their alpha.
    """
    side = background.shape[0]
    if style == "comic":
        # Dots, as in print, on a brighter background; the people get an outline.
        rows, columns = np.mgrid[0:side, 0:side] * (128 / side)
        dots = np.sin(rows * np.pi / 4) * np.sin(columns * np.pi / 4)
        background = np.clip(background * 1.12 + 0.05 * np.sign(dots)[..., None], 0, 1)
    picture = background
    for layer in people:
        if style == "comic":
            picture = picture * (1 - _outline(layer[..., 3]))[..., None]
        picture = _over(layer, picture)
    picture = _over(weather, picture)
    if style == "watercolor":
        picture = _watercolor(picture, rng)
    return np.clip(picture, 0, 1).astype(np.float32)


def _over(layer: Layer, picture: Layer) -> Layer:
    result: Layer = layer[..., :3] + picture * (1 - layer[..., 3:])
    return result


def _outline(alpha: Layer) -> Layer:
    """The alpha grown by about 2.5 % of the picture's side."""
    grown = _filtered(alpha, ImageFilter.MaxFilter(_odd(alpha.shape[0] / 25)))
    return _filtered(grown, ImageFilter.GaussianBlur(alpha.shape[0] / 220))


def _watercolor(picture: Layer, rng: random.Random) -> Layer:
    """Paler, on white paper with a soft uneven border."""
    side = picture.shape[0]
    pale = 0.16 + 0.84 * picture
    coarse = np.array([[rng.uniform(-1, 1) for _ in range(9)] for _ in range(9)], np.float32)
    rough = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    edge = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) * (128 / side)
    inside = np.minimum(edge[:, None], edge[None, :]) + 2.5 * np.asarray(rough)
    paper = np.clip((inside - 4) / 5, 0, 1)[..., None]
    result: Layer = (pale * paper + 0.985 * (1 - paper)).astype(np.float32)
    return result


def _filtered(alpha: Layer, kernel: ImageFilter.Filter) -> Layer:
    image: Pixels = np.round(alpha * 255).astype(np.uint8)
    return unit_range(np.asarray(Image.fromarray(image).filter(kernel)))


def _odd(size: float) -> int:
    return max(3, 2 * round((size - 1) / 2) + 1)
