"""Cost against quality: which rows are drawn, and their section of docs/quality.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.record import table
from benchmarks.quality.cases import Pixels, Variant
from benchmarks.quality.cost_plot import draw_costs
from benchmarks.quality.page import COLUMNS, shown_columns, with_section
from benchmarks.quality.sight import in_gray
from benchmarks.schema.quality import CurveRecord, CurveRow
from engines.engine import HostPrecision
from engines.providers import HOST_PROVIDERS
from runtime import GuidanceRule, Preset, Provider, Scheduler

START, END = "<!-- curve -->", "<!-- end of curve -->"
REFERENCE = Preset.QUALITY.value
BFLOAT16 = "quality, OpenVINO in bfloat16"

_SECTION = """{start}
## Cost against quality

Written by `python -m benchmarks quality --curve` at commit {commit}. Each row: the same
{pictures} pictures,
from the same noise, paired with those of the preset `quality` (50 steps, {most} U-Net evaluations a
picture). The rows named by a solver take the released guidance rule and compute guidance in every
second step of the subject stage, as the faster presets do. *Gain*: of identity, case by case, with
its 95 % interval. *Pixels*: mean absolute difference, as a share of the range. *Structure*:
1 - SSIM of the gray pictures, windows of 8 px. Equal scores are not equal pictures: these two say
how far a picture moves. The row in bfloat16 is what OpenVINO's precision alone moves.
{columns}
{table}

![Identity over U-Net evaluations](quality/curve.png)

A picture's time, the presets in turns ({rounds} rounds, medians, {provider}, {threads} threads,
{cpu}): {times}. {busy}
{end}"""


def curve_variants() -> list[Variant]:
    """The presets first, then what else was tried at their cost, and what is known to fail."""

    def subject_cached(scheduler: Scheduler, steps: int) -> dict[str, Any]:
        return {
            "scheduler": scheduler, "num_inference_steps": steps, "guidance_every": 2,
            "guidance_rule": GuidanceRule.RELEASED,
        }  # fmt: skip

    presets = [Variant(name=str(each), options=_preset(each), quick=True) for each in Preset]
    tried = [
        Variant(name=f"{scheduler}, {steps} steps", options=subject_cached(scheduler, steps))
        for steps in (20, 10)
        for scheduler in Scheduler
        if scheduler is not Scheduler.PNDM
    ]
    paper: dict[str, Any] = {"num_inference_steps": 20}
    others = [
        Variant(name="ddim, 20 steps, paper's guidance", options=paper),
        Variant(
            name="plms2, 20 steps, paper's guidance",
            options={**paper, "scheduler": Scheduler.PLMS2},
        ),
        Variant(name="pndm, 20 steps", options={**paper, "scheduler": Scheduler.PNDM}),
        Variant(
            name="pndm, 50 steps",
            options={"num_inference_steps": 50, "scheduler": Scheduler.PNDM},
        ),
    ]
    if HostPrecision.BFLOAT16 in HOST_PROVIDERS[Provider.OPENVINO].precisions():
        others.append(
            Variant(
                name=BFLOAT16,
                options=_preset(Preset.QUALITY),
                provider=Provider.OPENVINO,
                computed_in=HostPrecision.BFLOAT16,
            )
        )
    return [*presets, *tried, *others]


def structure_difference(first: Sequence[Pixels], second: Sequence[Pixels]) -> float:
    """1 - SSIM (Wang et al. 2004) of gray pictures in [0, 1], windows of 8 px side by side."""
    x, y = (_windows(np.stack(each)) for each in (first, second))
    mean_x, mean_y = x.mean(-1), y.mean(-1)
    covariance = ((x - mean_x[..., None]) * (y - mean_y[..., None])).mean(-1)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (x.var(-1) + y.var(-1) + c2)
    return 1 - float(similarity.mean())


def _windows(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """[pictures, height, width, 3] -> [pictures, rows, columns, 64]."""
    gray = in_gray(pictures)
    count, height, width = gray.shape
    parts = gray.reshape(count, height // 8, 8, width // 8, 8)
    windows: npt.NDArray[np.float64] = parts.transpose(0, 1, 3, 2, 4).reshape(
        count, height // 8, width // 8, 64
    )
    return windows


def with_curve(page: str, record: CurveRecord) -> str:
    """docs/quality.md with the section of this record in place of the one it has, or before the
    comparison with the paper."""
    return with_section(page, curve_section(record), START, END)


def curve_section(record: CurveRecord) -> str:
    facts, header = record.facts, record.header
    quality = facts.picture_ms[REFERENCE]
    times = ", ".join(
        f"{name} {ms / 1e3:.2f} s"
        + ("" if name == REFERENCE else f" ({facts.speedup[name]:.2f} times faster)")
        for name, ms in facts.picture_ms.items()
    )
    assert quality > 0
    return _SECTION.format(
        start=START,
        end=END,
        commit=header.commit,
        pictures=record.rows[0].pictures,
        most=record.rows[0].evaluations,
        columns=COLUMNS if record.rows[-1].frechet is not None else "",
        table=table([_shown(row) for row in record.rows]),
        rounds=facts.rounds,
        provider=facts.provider,
        threads=facts.threads,
        cpu=header.machine.cpu,
        times=times,
        busy="The machine was busy with other work meanwhile." if header.machine.busy else "",
    )


def draw_curve(rows: Sequence[CurveRow], path: Path) -> None:
    """Identity over evaluations as a picture of its own."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.4), layout="constrained")
    draw_costs(axes, rows)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _shown(row: CurveRow) -> dict[str, str | None]:
    gain = row.identity_gain_95
    return {
        "row": row.row,
        "evaluations": str(row.evaluations),
        "identity": f"{row.identity:.3f}",
        "gain": ""
        if gain is None
        else f"{row.identity_gain:+.3f} [{gain[0]:+.3f}, {gain[1]:+.3f}]",
        "scene": f"{row.scene:.3f} [{row.scene_95[0]:.3f}, {row.scene_95[1]:.3f}]",
        "prompt": f"{row.prompt:.3f}",
        "pixels": f"{row.pixel_difference:.4f}",
        "structure": f"{row.structure_difference:.4f}",
        **shown_columns(row),
    }


def _preset(preset: Preset) -> dict[str, Any]:
    """A row's options. None: whatever the preset decides, not this benchmark's usual steps."""
    return {"preset": preset, "num_inference_steps": None}
