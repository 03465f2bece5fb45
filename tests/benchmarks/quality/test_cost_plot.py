"""Cost against quality as a plot: nothing is left out, and nothing far below squeezes the rest."""

from __future__ import annotations

import pytest

from benchmarks.quality.cost_plot import draw_costs
from benchmarks.schema.quality import CurveRow

matplotlib = pytest.importorskip("matplotlib.figure")


def _row(name: str, evaluations: int, identity: float) -> CurveRow:
    return CurveRow(
        row=name, pictures=2, evaluations=evaluations, identity=identity,
        identity_95=(identity - 0.003, identity + 0.003), identity_gain=None, identity_gain_95=None,
        scene=1.0, scene_95=(1.0, 1.0), prompt=1.0, pixel_difference=0.0,
        structure_difference=0.0,
    )  # fmt: skip


def test_presets_are_named_and_others_are_beside_them_by_solver() -> None:
    rows = [
        _row("quality", 165, 0.86), _row("fast", 24, 0.85), _row("ddim, 10 steps", 24, 0.84),
        _row("plms2, 10 steps", 24, 0.83), _row("ddim, 20 steps", 48, 0.85),
        _row("pndm, 20 steps", 68, 0.49),
    ]  # fmt: skip
    axes = matplotlib.Figure().subplots()
    draw_costs(axes, rows)
    joined = axes.lines[0]
    assert list(joined.get_xdata()) == [24, 165] and list(joined.get_ydata()) == [0.85, 0.86]
    assert {each.get_text() for each in axes.texts} == {"quality", "fast", "pndm, 20 steps: 0.49"}
    legend = axes.get_legend()
    assert {each.get_text() for each in legend.get_texts()} == {"ddim", "plms2", "pndm"}
    low, high = axes.get_ylim()
    assert 0.49 < low < 0.83 and high > 0.87
    drawn = [
        (each.get_xdata()[0], each.get_ydata()[0])
        for each in axes.lines
        if len(each.get_xdata()) == 1
    ]
    at = {round(identity, 4): cost for cost, identity in drawn}
    assert 24 < at[0.84] < at[0.83] < 26  # of equal cost, side by side
    assert all(low < identity < high for _, identity in drawn)
    assert [int(each) for each in axes.get_xticks()] == [24, 165]


def test_rows_without_presets_are_drawn_too() -> None:
    axes = matplotlib.Figure().subplots()
    draw_costs(axes, [_row("ddim, 10 steps", 24, 0.8), _row("ddim, 20 steps", 48, 0.9)])
    assert [int(each) for each in axes.get_xticks()] == [24, 48]
