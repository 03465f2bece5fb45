"""The figures of docs/quality.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.quality.cases import STEPS, Case, Pixels
from benchmarks.schema.quality import QualityRow
from runtime import FaceDiffuser, Request

SHEET_ROWS = ("full method", "TDM alone", "SDM alone", "addition instead of SNF")
_SHEET_PICTURES = 8
_SALIENCY_PICTURES = 24
_GAP_PX = 4

Maps = npt.NDArray[np.float64]


def draw_figures(
    rows: Sequence[QualityRow],
    face_diffuser: FaceDiffuser,
    listed: list[Case],
    pictures: dict[str, list[Pixels]],
    folder: Path,
) -> None:
    """The contact sheet, the sweeps' curves and the mean saliency maps."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = Image.fromarray(_contact_sheet(listed, pictures))
    sheet.save(folder / "pictures.png", optimize=True)
    draw_sweeps(rows, folder / "sweeps.png")
    draw_saliency(mean_saliency(face_diffuser, listed), folder / "saliency.png")


def draw_sweeps(rows: Sequence[QualityRow], path: Path) -> None:
    """Identity and scene over alpha (beta 0.6) and over beta (alpha 0.3), with their intervals."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axis, name, default in zip(axes, ("alpha", "beta"), (0.3, 0.6), strict=True):
        points = {float(row.row.split()[1]): row for row in rows if row.row.startswith(name)}
        points[default] = next(row for row in rows if row.row == "full method")
        values = sorted(points)
        swept = [points[value] for value in values]
        for label, means, ends in (
            ("identity", [row.identity for row in swept], [row.identity_95 for row in swept]),
            ("scene", [row.scene for row in swept], [row.scene_95 for row in swept]),
        ):
            axis.plot(values, means, marker="o", label=label)
            axis.fill_between(values, *np.array(ends).T, alpha=0.2)
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def mean_saliency(face_diffuser: FaceDiffuser, listed: list[Case]) -> Maps:
    """[tdm | sdm | mask, stage, h, w]: means over one-person pictures and a stage's steps."""
    sums: list[list[Any]] = [[[], [], []] for _ in range(3)]
    for case in [case for case in listed if len(case.looks) == 1][:_SALIENCY_PICTURES]:
        request = Request(
            prompt=case.prompt, references=case.photos, seed=case.seed, saliency=True,
            alpha=0.0, beta=1.0, num_inference_steps=STEPS,
        )  # fmt: skip
        for seen in face_diffuser.generate(request).saliency or ():
            share = seen.step / STEPS
            stage = 0 if share < 0.3 else 1 if share < 0.6 else 2
            for kind, name in enumerate(("tdm", "sdm", "mask")):
                sums[kind][stage].append(getattr(seen.saliency, name)[0])
    return np.array([[np.mean(stage, axis=0) for stage in kind] for kind in sums])


def draw_saliency(maps: Maps, path: Path) -> None:
    """Rows: TDM, SDM, share of SDM in the mask. Columns: the three stages' steps."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 3, figsize=(6.4, 6.6))
    stages = ("scene construction", "subject-scene fusion", "subject enhancement")
    for row, (name, kind) in enumerate(zip(("TDM", "SDM", "SDM taken"), maps, strict=True)):
        for axis, stage, shown in zip(axes[row], stages, kind, strict=True):
            limits = (0, 1) if name == "SDM taken" else (None, None)
            axis.imshow(shown, cmap="magma", vmin=limits[0], vmax=limits[1])
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(stage, fontsize=9)
        axes[row][0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _contact_sheet(listed: list[Case], pictures: dict[str, list[Pixels]]) -> Pixels:
    """A column per case: its photos side by side, then one picture per variant."""
    columns = []
    for index, case in enumerate(listed[:_SHEET_PICTURES]):
        side = pictures[SHEET_ROWS[0]][index].shape[0]
        photos = np.full((side // 2, side, 3), 255, np.uint8)
        for place, photo in enumerate(case.photos):
            left = place * side // 2 if len(case.photos) == 2 else side // 4
            small = Image.fromarray(photo).resize((side // 2, side // 2), Image.Resampling.LANCZOS)
            photos[:, left : left + side // 2] = np.asarray(small)
        columns.append(stacked([photos, *(pictures[name][index] for name in SHEET_ROWS)], axis=0))
    return stacked(columns, axis=1)


def stacked(parts: list[Pixels], *, axis: int) -> Pixels:
    """Pictures joined with a white gap."""
    shape = list(parts[0].shape)
    shape[axis] = _GAP_PX
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([each for part in parts for each in (part, gap)][:-1], axis=axis)
