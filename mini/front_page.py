"""Draws the README's pictures: a sheet of people in scenes, and one picture as it comes about.

python -m mini.front_page [--bundle BUNDLE] [--out docs/front.png] [--animation docs/drawing.webp]

Of each row eight candidates are drawn: other people, whom training never saw, from another seed.
Shown is the one in which the probes, which never see the photos, are surest of the people's
attributes and of the scene.
"""

from __future__ import annotations

import argparse
import random
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from engines.cli.parser import command_parser
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from export.graph.modules import VaeDecoder
from mini.probes import Pixels, Probe, as_input, open_probes, person_views, setting_view
from mini.ship import REFERENCE_PX
from mini.world import SCENES, Look, draw_portrait, random_look
from runtime import FaceDiffuser, Request, Stage, StepInfo

_CELL_PX, _GAP_PX, _TEXT_PX = 256, 8, 84
_COLUMNS = ("references", "result", "TDM saliency", "SDM saliency", "mask: SDM in white")


CANDIDATES = 8
# How many people, and what they do where; the people's own words come from who they are.
ROWS = (
    (2, "in a park"),
    (1, "waving on a beach at sunset"),
    (2, "cheering on a stage"),
    (1, "reading on the moon"),
)
_ANIMATED = 1
_SCENES = ("park", "beach", "stage", "moon")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt, who the people are, where, and the seed."""

    prompt: str
    looks: tuple[Look, ...]
    scene: str
    seed: int

    def photos(self) -> list[Image.Image]:
        """A portrait of each person, 256 px."""
        return [
            Image.fromarray(draw_portrait(look, random.Random(place + 1), side_px=REFERENCE_PX))
            for place, look in enumerate(self.looks)
        ]


def candidates(row: int) -> list[Example]:
    """Of one row, each with people of its own whom training never saw."""
    people, doing = ROWS[row]
    found = []
    for seed in range(CANDIDATES):
        rng = random.Random(f"front {row} {seed}")
        looks = tuple(random_look(rng, held_out=True) for _ in range(people))
        who = " and ".join(f"a {look.kind} <|image|>" for look in looks)
        found.append(Example(prompt=f"{who} {doing}", looks=looks, scene=_SCENES[row], seed=seed))
    return found


def sureness(picture: Image.Image, example: Example, probes: tuple[Probe, Probe]) -> float:
    """Mean log probability of the least sure person's true attributes, and of the true scene."""
    person, setting = probes
    pixels = np.asarray(picture)
    views = person_views(pixels, len(example.looks))
    people = _log_probabilities(person, views)
    surest = [
        float(np.mean([people[name][place, label] for name, label in look.labels().items()]))
        for place, look in enumerate(example.looks)
    ]
    scene = _log_probabilities(setting, [setting_view(pixels)])["scene"]
    return min(surest) + float(scene[0, tuple(SCENES).index(example.scene)])


@torch.no_grad()
def _log_probabilities(probe: Probe, views: list[Pixels]) -> dict[str, npt.NDArray[np.floating]]:
    logits = probe(as_input(np.stack(views)))
    return {name: torch.log_softmax(each, dim=1).numpy() for name, each in logits.items()}


def best_of(face_diffuser: FaceDiffuser, row: int, probes: tuple[Probe, Probe]) -> Example:
    """The candidate of a row that the probes are surest of."""

    def surest(example: Example) -> float:
        request = Request(prompt=example.prompt, references=example.photos(), seed=example.seed)
        return sureness(face_diffuser.generate(request).pictures[0], example, probes)

    return max(candidates(row), key=surest)


def drawn_row(face_diffuser: FaceDiffuser, example: Example) -> Image.Image:
    """References, result, both models' mean saliency over the fusion steps, and the last mask."""
    photos = example.photos()
    request = Request(prompt=example.prompt, references=photos, seed=example.seed, saliency=True)
    result = face_diffuser.generate(request)
    seen = [step.saliency for step in result.saliency or ()]
    maps = [np.mean([getattr(each, name)[0] for each in seen], axis=0) for name in ("tdm", "sdm")]
    cells = [_side_by_side(photos), _fitted(result.pictures[0]), *map(_heat, maps)]
    cells.append(_heat(seen[-1].mask[0].astype(np.float64)))
    row = Image.new("RGB", _sheet_size(1), "white")
    for place, cell in enumerate(cells):
        row.paste(cell, (place * (_CELL_PX + _GAP_PX), 0))
    return row


def animation(face_diffuser: FaceDiffuser, example: Example) -> list[Image.Image]:
    """The picture after every second step, and what both models found salient in the fusion.

    Each frame: the latents decoded as they are, TDM's saliency, SDM's saliency. Outside the fusion
    stage one model draws alone, and there are no maps.
    """
    steps: list[StepInfo] = []
    latents: list[npt.NDArray[np.float32]] = []

    def keep(info: StepInfo) -> None:
        steps.append(info)
        latents.append(info.latents)

    request = Request(
        prompt=example.prompt, references=example.photos(), seed=example.seed, saliency=True
    )
    result = face_diffuser.generate(request, on_step=keep)
    decoder = VaeDecoder(Checkpoint.open(SHIPPED_MODEL).vae_decoder())
    maps = {each.step: each.saliency for each in result.saliency or ()}
    frames = []
    for info, after in list(zip(steps, latents, strict=True))[1::2]:
        seen = maps.get(info.step)
        picture = decoded(decoder, after)
        frames.append(_frame(info, picture, None if seen is None else (seen.tdm[0], seen.sdm[0])))
    return frames


def _frame(
    info: StepInfo,
    picture: Image.Image,
    maps: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]] | None,
) -> Image.Image:
    alone = {Stage.SCENE: "TDM draws alone", Stage.SUBJECT: "SDM draws alone"}
    frame = Image.new(
        "RGB", (3 * (_CELL_PX + _GAP_PX) - _GAP_PX, _CELL_PX + _TEXT_PX // 2), "white"
    )
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(18)
    frame.paste(_fitted(picture), (0, _TEXT_PX // 2))
    told = f"step {info.step + 1} of {info.num_steps}: {info.stage.value}"
    draw.text((4, 10), told, "black", font)
    for place, title in enumerate(("TDM saliency", "SDM saliency"), 1):
        left = place * (_CELL_PX + _GAP_PX)
        if maps is None:
            draw.rectangle(
                (left, _TEXT_PX // 2, left + _CELL_PX, _TEXT_PX // 2 + _CELL_PX), "#eeeeee"
            )
        else:
            frame.paste(_heat(maps[place - 1]), (left, _TEXT_PX // 2))
        draw.text((left + 4, 10), title if maps else alone.get(info.stage, ""), "black", font)
    return frame


def contact_sheet(rows: list[tuple[str, Image.Image]]) -> Image.Image:
    """The rows below each other, each above its prompt."""
    width, height = _sheet_size(1)
    step = height + _TEXT_PX // 2
    sheet = Image.new("RGB", (width, _TEXT_PX // 2 + step * len(rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for place, title in enumerate(_COLUMNS):
        draw.text((place * (_CELL_PX + _GAP_PX) + 4, 8), title, "black", font)
    for number, (prompt, row) in enumerate(rows):
        top = _TEXT_PX // 2 + number * step
        sheet.paste(row, (0, top))
        draw.text((4, top + height + 6), textwrap.shorten(prompt, 100), "black", font)
    return sheet


@torch.no_grad()
def decoded(decoder: VaeDecoder, latents: npt.NDArray[np.float32]) -> Image.Image:
    """Latents [1, 4, h, w] as a picture of 8h x 8w px, by the shipped model's own decoder."""
    pixels = decoder(torch.from_numpy(latents))[0].permute(1, 2, 0).clamp(-1, 1)
    return Image.fromarray(np.rint((pixels.numpy() + 1) * 127.5).astype(np.uint8))


def _sheet_size(rows: int) -> tuple[int, int]:
    return len(_COLUMNS) * (_CELL_PX + _GAP_PX) - _GAP_PX, rows * _CELL_PX


def _side_by_side(photos: list[Image.Image]) -> Image.Image:
    cell = Image.new("RGB", (_CELL_PX, _CELL_PX), "white")
    side = _CELL_PX // len(photos)
    for place, photo in enumerate(photos):
        cell.paste(
            photo.resize((side, side), Image.Resampling.LANCZOS),
            (place * side, (_CELL_PX - side) // 2),
        )
    return cell


def _fitted(picture: Any) -> Image.Image:
    fitted: Image.Image = picture.resize((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS)
    return fitted


def _heat(shown: npt.NDArray[np.floating]) -> Image.Image:
    """A map [h, w] from black at its smallest value over orange to white at its largest."""
    share = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-9)
    colors = np.stack([np.clip(share * limit, 0, 1) for limit in (2.4, 1.4, 1.0)], axis=-1)
    image = Image.fromarray(np.round(colors * 255).astype(np.uint8))
    return image.resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST)


def parser() -> argparse.ArgumentParser:
    flags = command_parser("mini.front_page", __doc__, ["--bundle", "bundle"])
    flags.add_argument("--bundle", type=Path, default=Path("bundle"), help="what draws")
    flags.add_argument("--out", type=Path, default=Path("docs/front.png"), help="sheet to write")
    flags.add_argument(
        "--animation", type=Path, default=Path("docs/drawing.webp"), help="animation to write"
    )
    return flags


def main() -> None:
    """The sheet and the animation of one of its rows."""
    options = parser().parse_args()
    probes = open_probes()
    with FaceDiffuser.open(options.bundle) as face_diffuser:
        chosen = [best_of(face_diffuser, row, probes) for row in range(len(ROWS))]
        rows = [(each.prompt, drawn_row(face_diffuser, each)) for each in chosen]
        first, *others = animation(face_diffuser, chosen[_ANIMATED])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows).save(options.out, optimize=True)
    durations = [120] * len(others) + [2500]
    first.save(
        options.animation, save_all=True, append_images=others, duration=durations, loop=0,
        quality=70,
    )  # fmt: skip
    for each in chosen:
        print(f"{each.prompt}: seed {each.seed}")


if __name__ == "__main__":
    main()
