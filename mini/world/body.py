"""Bodies and poses, in the head's units: its center is the origin, its half height is 1."""

from __future__ import annotations

import math

from mini.world.canvas import (
    WHITE,
    Canvas,
    Color,
    Point,
    blob,
    curve,
    darker,
    flat,
    lighter,
    linear,
    polygon,
    radial,
    stroke,
)
from mini.world.head import SKIN, draw_back_hair, draw_head
from mini.world.look import Look

POSES = ("standing", "waving", "cheering", "reading", "holding a balloon")
CLOTHES: dict[str, Color] = {
    "red": (222, 46, 52),
    "yellow": (252, 202, 40),
    "green": (52, 166, 82),
    "blue": (44, 104, 220),
    "purple": (148, 74, 190),
    "white": (244, 244, 248),
    "charcoal": (62, 64, 78),
}
_SLEEVE_WIDTH = 0.5
# From the shoulder over the elbow to the hand, on the right of the picture; the other is mirrored.
_DOWN: list[Point] = [(1.02, 1.72), (1.42, 2.3), (1.3, 3.1)]
_WAVING: list[Point] = [(1.0, 1.75), (1.95, 1.95), (1.72, 0.72)]
_UP: list[Point] = [(1.0, 1.75), (1.75, 0.9), (1.42, -0.55)]
_READING: list[Point] = [(1.02, 1.75), (1.5, 2.6), (0.66, 2.5)]
_HOLDING: list[Point] = [(1.0, 1.75), (1.65, 2.2), (1.62, 1.3)]
_RIGHT_ARM = {
    "standing": _DOWN,
    "waving": _WAVING,
    "cheering": _UP,
    "reading": _READING,
    "holding a balloon": _HOLDING,
}
_BOTH_ARMS = ("standing", "cheering", "reading")


def draw_person(canvas: Canvas, look: Look, pose: str) -> None:
    """A whole person down to the hips, facing the viewer; raises the arm on the right."""
    draw_back_hair(canvas, look)
    if pose == "holding a balloon":
        _draw_balloon(canvas)
    _draw_torso(canvas, look)
    right = _RIGHT_ARM[pose]
    left = right if pose in _BOTH_ARMS else _DOWN
    if pose == "cheering":
        _draw_arms(canvas, look, left, right)
    draw_head(canvas, look)
    if pose == "reading":
        _draw_book(canvas)
    if pose != "cheering":
        _draw_arms(canvas, look, left, right)


def _draw_torso(canvas: Canvas, look: Look) -> None:
    skin, color = SKIN[look.skin], CLOTHES[look.clothes_color]
    right = [(0.3, 1.16), (0.72, 1.28), (1.36, 1.52), (1.24, 2.6), (1.3, 4.4)]
    torso = blob(right + [(-x, y) for x, y in reversed(right)])
    canvas.path(torso, radial((-0.4, 1.7), 2.4, [lighter(color, 0.18), color, darker(color, 0.3)]))
    with canvas.clipped(torso):
        _draw_pattern(canvas, look, color)
        canvas.oval(0, 1.14, 0.95, 0.34, flat((20, 14, 40), 0.22, blur=0.1))
    canvas.path(blob([(-0.36, 0.7), (0.36, 0.7), (0.38, 1.4), (0, 1.62), (-0.38, 1.4)]),
                linear((0, 0.85), (0, 1.55), [darker(skin, 0.36), darker(skin, 0.1)]))  # fmt: skip


def _draw_pattern(canvas: Canvas, look: Look, color: Color) -> None:
    pale = look.clothes_color in ("white", "yellow")
    ink = (64, 84, 150) if pale else WHITE
    match look.pattern:
        case "stripes":
            for index in range(5):
                top = 1.72 + 0.62 * index
                canvas.box(-2, top, 2, top + 0.29, flat(ink, 0.92))
        case "dots":
            for row in range(5):
                for column in range(-3, 4):
                    x = 0.62 * column + (0.31 if row % 2 else 0.0)
                    canvas.oval(x, 1.78 + 0.48 * row, 0.155, 0.155, flat(ink, 0.95))
        case "star":
            points = [
                (0.52 * r * math.sin(a), 2.24 - 0.52 * r * math.cos(a))
                for a, r in ((math.pi * i / 5, 0.45 if i % 2 else 1.0) for i in range(10))
            ]
            star = polygon(points)
            canvas.path(star, flat(ink))
            canvas.path(star, stroke(ink, 0.08))


def _draw_arms(canvas: Canvas, look: Look, left: list[Point], right: list[Point]) -> None:
    for side, joints in ((-1, left), (1, right)):
        _draw_arm(canvas, look, [(side * x, y) for x, y in joints])


def _draw_arm(canvas: Canvas, look: Look, joints: list[Point]) -> None:
    skin, color = SKIN[look.skin], CLOTHES[look.clothes_color]
    hand_x, hand_y = joints[-1]
    canvas.oval(hand_x, hand_y, 0.27, 0.29, radial((hand_x - 0.1, hand_y - 0.1), 0.5,
                [lighter(skin, 0.2), skin, darker(skin, 0.25)]))  # fmt: skip
    sleeve = _shortened(joints)
    canvas.path(curve(sleeve), stroke(darker(color, 0.34), _SLEEVE_WIDTH + 0.08))
    canvas.path(curve(sleeve), stroke(color, _SLEEVE_WIDTH - 0.04))
    shine = [(x - 0.06, y - 0.05) for x, y in sleeve]
    canvas.path(curve(shine), stroke(lighter(color, 0.22), 0.12, 0.7))


def _shortened(joints: list[Point]) -> list[Point]:
    """The joints with the last one pulled back to the wrist."""
    (elbow_x, elbow_y), (x, y) = joints[-2:]
    share = 0.4 / math.hypot(x - elbow_x, y - elbow_y)
    return [*joints[:-1], (x + (elbow_x - x) * share, y + (elbow_y - y) * share)]


def _draw_balloon(canvas: Canvas) -> None:
    canvas.line([(1.62, 1.3), (1.74, 0.6), (1.62, -0.25)], stroke((90, 90, 100), 0.05))
    color: Color = (255, 92, 60)
    knot = polygon([(1.5, -0.2), (1.74, -0.2), (1.62, -0.42)])
    canvas.path(knot, flat(darker(color)))
    paint = radial((1.44, -1.1), 0.95, [(255, 214, 190), color, darker(color, 0.3)])
    canvas.oval(1.62, -0.88, 0.52, 0.62, paint)


def _draw_book(canvas: Canvas) -> None:
    cover: Color = (36, 120, 106)
    for side in (-1, 1):
        outside = [(0, 2.1), (side * 0.9, 1.92), (side * 0.9, 2.85), (0, 3.05)]
        canvas.path(polygon(outside), flat(cover if side < 0 else darker(cover, 0.2)))
        pages = [(0, 2.02), (side * 0.84, 1.84), (side * 0.84, 2.0), (0, 2.2)]
        canvas.path(polygon(pages), flat((252, 246, 226)))
    canvas.line([(0, 2.1), (0, 3.05)], stroke(darker(cover, 0.5), 0.06))
