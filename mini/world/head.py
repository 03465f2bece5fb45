"""Heads: faces, hair and hats. The head's center is the origin, its half height is 1."""

from __future__ import annotations

import math

import skia

from mini.world.canvas import (
    BLACK,
    WHITE,
    Canvas,
    Color,
    blob,
    darker,
    flat,
    lighter,
    linear,
    mixed,
    oval_path,
    polygon,
    radial,
    stroke,
)
from mini.world.look import Look

SKIN: dict[str, Color] = {
    "pale": (255, 226, 208),
    "peach": (246, 192, 152),
    "tan": (212, 150, 100),
    "brown": (150, 94, 60),
    "dark": (94, 58, 44),
}
HAIR: dict[str, Color] = {
    "black": (44, 38, 50),
    "brown": (110, 64, 36),
    "blond": (244, 204, 96),
    "red": (212, 84, 32),
    "silver": (206, 210, 222),
    "pink": (240, 112, 168),
}
EYES: dict[str, Color] = {
    "brown": (104, 56, 26),
    "blue": (40, 126, 240),
    "green": (34, 168, 84),
    "amber": (240, 164, 24),
}
_EYE_X, _EYE_Y = 0.37, 0.1


def draw_back_hair(canvas: Canvas, look: Look) -> None:
    """What of the hair lies behind the head and shoulders."""
    color = HAIR[look.hair_color]
    shade = linear((0, -1.2), (0, 1.5), [color, darker(color, 0.35)])
    match look.hair_style:
        case "long":
            outline = [(-0.7, -1.25), (0.7, -1.25), (1.2, -0.4), (1.12, 0.8), (1.3, 1.75),
                       (0.5, 1.9), (-0.5, 1.9), (-1.3, 1.75), (-1.12, 0.8),
                       (-1.2, -0.4)]  # fmt: skip
            canvas.path(blob(outline), shade)
        case "bob":
            outline = [(-0.7, -1.25), (0.7, -1.25), (1.2, -0.3), (1.25, 0.85), (0.9, 1.05),
                       (-0.9, 1.05), (-1.25, 0.85), (-1.2, -0.3)]  # fmt: skip
            canvas.path(blob(outline), shade)
        case "curly":
            for x, y, radius in _curls():
                light = lighter(color, 0.3)
                paint = radial(
                    (x - 0.1, y - 0.14), radius * 1.3, [light, color, darker(color, 0.3)]
                )
                canvas.oval(x, y, radius, radius, paint)
        case "bun":
            paint = radial((-0.12, -1.4), 0.6, [lighter(color, 0.3), color, darker(color, 0.25)])
            canvas.oval(0, -1.24, 0.42, 0.4, paint)


def draw_head(canvas: Canvas, look: Look) -> None:
    """Ears, face, hair and hat."""
    skin = SKIN[look.skin]
    for side in (-1, 1):
        canvas.oval(side * 0.87, 0.16, 0.17, 0.24, flat(darker(skin, 0.12)))
        canvas.oval(side * 0.87, 0.17, 0.09, 0.14, flat(darker(skin, 0.28)))
    face = _face(look)
    canvas.path(face, radial((-0.25, -0.3), 1.55, [lighter(skin, 0.22), skin, darker(skin, 0.3)]))
    with canvas.clipped(face):
        for side in (-1, 1):
            blush = mixed(skin, (244, 84, 84), 0.34 if look.kind in ("woman", "girl") else 0.2)
            canvas.oval(side * 0.52, 0.45, 0.2, 0.13, flat(blush, 0.8, blur=0.07))
        _draw_beard(canvas, look)
    for side in (-1, 1):
        _draw_eye(canvas, look, side)
    canvas.line([(-0.02, 0.2), (0.1, 0.4), (-0.05, 0.42)], stroke(darker(skin, 0.38), 0.06))
    _draw_mouth(canvas, look)
    _draw_front_hair(canvas, look, face)
    _draw_glasses(canvas, look)
    _draw_hat(canvas, look)


def _face(look: Look) -> skia.Path:
    jaw = {"man": 0.86, "woman": 0.62, "boy": 0.78, "girl": 0.72}[look.kind]
    right = [(0.45, -1.06), (0.94, -0.7), (0.93, 0.2), (jaw, 0.82), (0.3, 1.08)]
    return blob(right + [(-x, y) for x, y in reversed(right)])


def _draw_eye(canvas: Canvas, look: Look, side: int) -> None:
    iris = EYES[look.eye_color]
    large = 1.12 if look.kind in ("boy", "girl") else 1.0
    x, y, rx, ry = side * _EYE_X, _EYE_Y, 0.25 * large, 0.25 * large
    canvas.oval(x, y, rx, ry, flat((250, 250, 252)))
    with canvas.clipped(oval_path(x, y, rx, ry)):
        canvas.oval(x, y - ry * 0.95, rx, ry * 0.4, flat((120, 110, 140), 0.35, blur=0.04))
        canvas.oval(x, y + 0.01, 0.19 * large, 0.2 * large, flat(darker(iris, 0.35)))
        ring = radial((x, y + 0.1), 0.22, [lighter(iris, 0.3), iris])
        canvas.oval(x, y + 0.01, 0.165 * large, 0.175 * large, ring)
        canvas.oval(x, y + 0.01, 0.075 * large, 0.085 * large, flat(BLACK))
        canvas.oval(x - 0.07, y - 0.08, 0.055, 0.055, flat(WHITE))
    lash = stroke(BLACK, 0.08 if look.kind in ("woman", "girl") else 0.05)
    canvas.line([(x - rx, y - 0.05), (x - rx * 0.6, y - ry * 1.25), (x + rx * 0.6, y - ry * 1.25),
                 (x + rx, y - 0.05)], lash)  # fmt: skip
    if look.kind in ("woman", "girl"):
        canvas.line([(x + side * rx, y - 0.06), (x + side * (rx + 0.1), y - 0.16)], lash)
    thick = {"man": 0.11, "boy": 0.09}.get(look.kind, 0.065)
    brow = stroke(darker(HAIR[look.hair_color], 0.3), thick)
    canvas.line([(x - 0.22, y - 0.37), (x, y - 0.5), (x + 0.22, y - 0.37)], brow)


def _draw_mouth(canvas: Canvas, look: Look) -> None:
    skin = SKIN[look.skin]
    lips = mixed(skin, (200, 40, 70), 0.7) if look.kind in ("woman", "girl") else darker(skin, 0.45)
    mouth = blob([(-0.34, 0.58), (0.34, 0.58), (0.3, 0.82), (0, 0.94), (-0.3, 0.82)])
    canvas.path(mouth, flat((124, 30, 44)))
    with canvas.clipped(mouth):
        canvas.box(-0.3, 0.55, 0.3, 0.68, flat(WHITE))
        canvas.oval(0, 0.9, 0.18, 0.1, flat((232, 100, 110)))
    canvas.path(mouth, stroke(lips, 0.055))


def _draw_beard(canvas: Canvas, look: Look) -> None:
    color = HAIR[look.hair_color]
    shade = linear((0, 0.2), (0, 1.1), [color, darker(color, 0.3)])
    if look.beard == "full":
        outline = [(-1.1, 0.15), (-0.75, 0.3), (-0.5, 0.62), (-0.2, 0.46), (0, 0.5), (0.2, 0.46),
                   (0.5, 0.62), (0.75, 0.3), (1.1, 0.15), (1.1, 1.3), (-1.1, 1.3)]  # fmt: skip
        canvas.path(blob(outline), shade)
    elif look.beard == "mustache":
        outline = [(0, 0.42), (0.3, 0.42), (0.56, 0.66), (0.3, 0.6), (0, 0.58), (-0.3, 0.6),
                   (-0.56, 0.66), (-0.3, 0.42)]  # fmt: skip
        canvas.path(blob(outline), shade)


def _draw_front_hair(canvas: Canvas, look: Look, face: skia.Path) -> None:
    color = HAIR[look.hair_color]
    shade = linear((-0.7, -1.2), (0.6, 0.1), [lighter(color, 0.22), color, darker(color, 0.25)])
    match look.hair_style:
        case "short":
            outline = [(-0.5, -1.3), (0.5, -1.3), (1.05, -0.85), (1.0, -0.05), (0.8, -0.2),
                       (0.7, -0.62), (0.1, -0.55), (-0.7, -0.62), (-0.8, -0.2), (-1.0, -0.05),
                       (-1.05, -0.85)]  # fmt: skip
            canvas.path(blob(outline), shade)
        case "spiky":
            spikes: list[tuple[float, float]] = [(-1.0, 0.0)]
            for index in range(6):
                angle = math.pi * (1.02 + 0.192 * (index + 0.5))
                spikes.append((1.34 * math.cos(angle), 0.05 + 1.5 * math.sin(angle)))
                angle += math.pi * 0.096
                spikes.append((0.98 * math.cos(angle), 1.02 * math.sin(angle)))
            spikes += [(1.0, 0.0), (0.78, -0.5), (0.3, -0.62), (0.0, -0.45), (-0.3, -0.62),
                       (-0.78, -0.5)]  # fmt: skip
            path = polygon(spikes)
            canvas.path(path, shade)
            canvas.path(path, stroke(color, 0.08))
        case "curly":
            for x, y, radius in ((-0.62, -0.72, 0.34), (-0.2, -0.86, 0.36), (0.26, -0.84, 0.36),
                                 (0.66, -0.68, 0.32)):  # fmt: skip
                light = lighter(color, 0.3)
                paint = radial(
                    (x - 0.1, y - 0.14), radius * 1.3, [light, color, darker(color, 0.3)]
                )
                canvas.oval(x, y, radius, radius, paint)
        case "long" | "bob":
            for side in (-1, 1):
                outline = [(-side * 0.3, -1.32), (side * 0.75, -1.2), (side * 1.22, -0.4),
                           (side * 1.1, 0.7), (side * 0.86, 0.75), (side * 0.82, -0.1),
                           (side * 0.5, -0.6), (-side * 0.3, -0.72)]  # fmt: skip
                canvas.path(blob(outline), shade)
        case "bun":
            outline = [(-0.5, -1.25), (0.5, -1.25), (1.02, -0.8), (1.0, 0.1), (0.86, 0.0),
                       (0.72, -0.5), (0, -0.86), (-0.72, -0.5), (-0.86, 0.0), (-1.0, 0.1),
                       (-1.02, -0.8)]  # fmt: skip
            canvas.path(blob(outline), shade)


def _draw_glasses(canvas: Canvas, look: Look) -> None:
    if look.glasses == "none":
        return
    round_ones = look.glasses == "round"
    frame = stroke((30, 26, 36) if round_ones else (196, 30, 58), 0.1)
    glass = flat((190, 225, 255), 0.18)
    for side in (-1, 1):
        x = side * 0.4
        if round_ones:
            canvas.oval(x, 0.12, 0.34, 0.34, glass)
            canvas.oval(x, 0.12, 0.34, 0.34, frame)
        else:
            canvas.box(x - 0.34, -0.16, x + 0.34, 0.4, glass, corner=0.07)
            canvas.box(x - 0.34, -0.16, x + 0.34, 0.4, frame, corner=0.07)
        canvas.line([(side * 0.74, 0.06), (side * 0.92, 0.0)], frame)
    canvas.line([(-0.07, 0.08), (0, 0.02), (0.07, 0.08)], frame)


def _draw_hat(canvas: Canvas, look: Look) -> None:
    match look.hat:
        case "cap":
            color: Color = (226, 44, 48)
            crown = blob([(-1.02, -0.42), (-0.98, -1.5), (0, -1.72), (0.98, -1.5), (1.02, -0.42),
                          (0, -0.62)])  # fmt: skip
            canvas.path(
                crown, radial((-0.4, -1.3), 1.7, [lighter(color, 0.25), color, darker(color)])
            )
            peak = blob([(-0.98, -0.6), (0, -0.95), (0.98, -0.6), (1.1, -0.3), (0, -0.52),
                         (-1.1, -0.3)])  # fmt: skip
            canvas.path(peak, flat(darker(color, 0.3)))
            canvas.oval(0, -1.02, 0.26, 0.26, flat(WHITE))
        case "beanie":
            color = (36, 148, 160)
            crown = blob([(-1.08, -0.3), (-1.06, -1.4), (-0.5, -1.72), (0.5, -1.72), (1.06, -1.4),
                          (1.08, -0.3)])  # fmt: skip
            canvas.path(
                crown, radial((-0.4, -1.3), 1.7, [lighter(color, 0.3), color, darker(color)])
            )
            canvas.oval(0, -1.62, 0.27, 0.25, flat((250, 246, 236)))
            canvas.box(-1.04, -0.74, 1.04, -0.4, flat(darker(color, 0.28)), corner=0.16)
            for index in range(-3, 4):
                canvas.line([(index * 0.27, -0.68), (index * 0.27, -0.46)],
                            stroke(lighter(color, 0.3), 0.05))  # fmt: skip
        case "straw":
            color = (240, 206, 128)
            crown = blob([(-0.82, -0.5), (-0.8, -1.6), (0, -1.72), (0.8, -1.6), (0.82, -0.5)])
            canvas.path(
                crown, radial((-0.3, -1.3), 1.5, [lighter(color, 0.3), color, darker(color)])
            )
            canvas.box(-0.78, -0.98, 0.78, -0.68, flat((120, 60, 40)))
            brim = linear((0, -0.85), (0, -0.4), [lighter(color, 0.2), darker(color, 0.2)])
            canvas.oval(0, -0.62, 1.5, 0.24, brim)


def _curls() -> list[tuple[float, float, float]]:
    """Circles around the head: (x, y, radius)."""
    return [
        (1.02 * math.cos(angle), -0.25 + 0.98 * math.sin(angle), 0.36)
        for angle in (math.pi * (0.9 + 0.133 * index) for index in range(10))
    ]


__all__ = ["EYES", "HAIR", "SKIN", "draw_back_hair", "draw_head"]
