"""Pictures of people in scenes, each with its truth."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mini.world import indoors, outdoors
from mini.world.body import POSES, draw_person
from mini.world.canvas import Canvas, Layer, Pixels, as_pixels
from mini.world.look import Look, random_look
from mini.world.sky import draw_rain, draw_snowfall
from mini.world.styles import STYLES, styled

SIDE_PX = 128

SceneDrawer = Callable[[Canvas, random.Random, str], None]

# Every scene: who draws it, and in which weathers.
SCENES: dict[str, tuple[SceneDrawer, tuple[str, ...]]] = {
    "beach": (outdoors.draw_beach, ("sunny", "rainy", "sunset")),
    "forest": (outdoors.draw_forest, ("sunny", "rainy", "sunset")),
    "park": (outdoors.draw_park, ("sunny", "rainy", "sunset")),
    "snow": (outdoors.draw_snow, ("sunny", "snowy", "sunset")),
    "desert": (outdoors.draw_desert, ("sunny", "sunset")),
    "city": (outdoors.draw_city, ("none", "rainy")),
    "moon": (outdoors.draw_moon, ("none",)),
    "kitchen": (indoors.draw_kitchen, ("none",)),
    "stage": (indoors.draw_stage, ("none",)),
    "library": (indoors.draw_library, ("none",)),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a caption says of a picture, beside who is in it."""

    scene: str
    weather: str
    pose: str
    style: str

    def __post_init__(self) -> None:
        if self.scene not in SCENES or self.pose not in POSES or self.style not in STYLES:
            raise ValueError(f"unknown scene, pose or style in {self}")
        if self.weather not in SCENES[self.scene][1]:
            raise ValueError(f"{self.scene} has the weathers {SCENES[self.scene][1]}, got {self}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A drawn picture and its truth; people are listed from left to right.

    pixels: [side, side, 3] uint8. masks: [people, side, side] bool, what of each person is seen.
    boxes: per person (left, top, right, bottom) in px around the mask.
    heads: per person (x, y, half height) in px.
    """

    pixels: Pixels
    setting: Setting
    looks: tuple[Look, ...]
    masks: npt.NDArray[np.bool_]
    boxes: tuple[tuple[int, int, int, int], ...]
    heads: tuple[tuple[float, float, float], ...]


def random_setting(rng: random.Random) -> Setting:
    """Any scene in one of its weathers; most pictures have the plain style."""
    scene = rng.choice(tuple(SCENES))
    return Setting(
        scene=scene,
        weather=rng.choice(SCENES[scene][1]),
        pose=rng.choice(POSES),
        style=rng.choice(("plain", "plain", "plain", "comic", "watercolor")),
    )


def random_picture(seed: int, *, held_out: bool, side_px: int = SIDE_PX) -> Picture:
    """One or two people of one side of the split; the same picture for the same arguments."""
    rng = random.Random(f"picture {seed} {held_out}")
    looks = tuple(random_look(rng, held_out=held_out) for _ in range(rng.choice((1, 1, 2, 2))))
    return draw_picture(random_setting(rng), looks, rng, side_px=side_px)


def draw_picture(
    setting: Setting, looks: tuple[Look, ...], rng: random.Random, *, side_px: int = SIDE_PX
) -> Picture:
    """The people from left to right in the setting; rng places what the setting leaves open."""
    if len(looks) not in (1, 2):
        raise ValueError(f"a picture has one or two people, got {len(looks)}")
    unit = side_px / SIDE_PX
    background = Canvas(side_px)
    with background.placed((0, 0), unit):
        SCENES[setting.scene][0](background, rng, setting.weather)
    picture = background.layer()[..., :3]

    heads = _heads(rng, len(looks))
    layers = []
    for index, (look, (x, y, size)) in enumerate(zip(looks, heads, strict=True)):
        canvas = Canvas(side_px)
        mirror = index == 0 and len(looks) == 2
        with canvas.placed((x * unit, y * unit), size * unit, mirror=mirror,
                           tilt_degrees=rng.uniform(-3, 3)):  # fmt: skip
            draw_person(canvas, look, setting.pose)
        layers.append(canvas.layer())

    front = Canvas(side_px)
    with front.placed((0, 0), unit):
        if setting.weather == "rainy":
            draw_rain(front, rng)
        elif setting.weather == "snowy":
            draw_snowfall(front, rng)
    weather = front.layer()
    picture = styled(setting.style, picture, layers, weather, rng)
    masks = _visible(layers)
    return Picture(
        pixels=as_pixels(picture),
        setting=setting,
        looks=looks,
        masks=masks,
        boxes=tuple(_box(mask) for mask in masks),
        heads=tuple((x * unit, y * unit, size * unit) for x, y, size in heads),
    )


def _heads(rng: random.Random, people: int) -> list[tuple[float, float, float]]:
    """(x, y, half height) of each head in units of the picture."""
    if people == 1:
        return [(64 + rng.uniform(-7, 7), 53 + rng.uniform(-3, 4), rng.uniform(26, 28.5))]
    heads = []
    for x in (35, 93):
        heads.append((x + rng.uniform(-2, 2), 60 + rng.uniform(-3, 4), rng.uniform(20, 21.5)))
    return heads


def _visible(layers: list[Layer]) -> npt.NDArray[np.bool_]:
    """Where each person covers more than half of a pixel and nobody later covers them."""
    covered = [layer[..., 3] > 0.5 for layer in layers]
    for index in range(len(covered) - 1):
        for later in covered[index + 1 :]:
            covered[index] = covered[index] & ~later
    return np.stack(covered)


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
