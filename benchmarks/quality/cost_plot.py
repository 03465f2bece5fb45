"""Identity over U-Net evaluations, as docs/quality.md and the report show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.schema.quality import CurveRow
from runtime import Preset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the identity's range; a row that is further below the others stands at the lower edge.
_SHOWN_BELOW_BEST = 0.12
# Rows of equal cost stand side by side: each so much to the right of the one before.
_APART = 1.022
_MARKS = ("s", "^", "v", "D", "P", "X", "<", ">", "*", "h")


def draw_costs(axes: Axes, rows: Sequence[CurveRow]) -> None:
    """Presets by name and joined; all others by solver, as the legend beside the plot says."""
    best = max(row.identity for row in rows)
    lowest = best - _SHOWN_BELOW_BEST
    names = {str(each) for each in Preset}
    presets = sorted((row for row in rows if row.row in names), key=lambda row: row.evaluations)
    others = [row for row in rows if row.row not in names]
    axes.set_xscale("log")
    axes.plot(
        [row.evaluations for row in presets], [row.identity for row in presets],
        color="tab:blue", zorder=3,
    )  # fmt: skip
    for row in presets:
        _point(axes, row, row.evaluations, fmt="o", color="tab:blue", zorder=4)
        axes.annotate(
            row.row, (row.evaluations, row.identity_95[1]), xytext=(0, 4), ha="center",
            textcoords="offset points", fontsize="small", fontweight="bold", color="tab:blue",
        )  # fmt: skip
    kinds = list(dict.fromkeys(_kind(row) for row in others))
    beside: dict[int, int] = {}
    for row in sorted(others, key=lambda row: kinds.index(_kind(row))):
        number = kinds.index(_kind(row))
        beside[row.evaluations] = place = beside.get(row.evaluations, 0) + 1
        at = row.evaluations * _APART**place
        look: dict[str, Any] = {"color": f"C{1 + number % 9}", "label": _kind(row)}
        if row.identity >= lowest:
            _point(axes, row, at, fmt=_MARKS[number % len(_MARKS)], markersize=5, **look)
            continue
        axes.plot([at], [lowest], marker="v", linestyle="none", **look)
        axes.annotate(
            f"{row.row}: {row.identity:.2f}", (at, lowest), xytext=(6, 2),
            textcoords="offset points", fontsize="small",
        )  # fmt: skip
    costs = sorted({row.evaluations for row in presets or rows})
    axes.set_xticks(costs, [str(cost) for cost in costs])
    axes.set_xticks([], minor=True)
    axes.set_ylim(lowest - 0.01, best + 0.04)
    axes.set_xlabel("U-Net evaluations a picture; rows of equal cost side by side")
    axes.set_ylabel("identity, with its 95 % interval")
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))  # a solver has a handle for each of its rows
    axes.legend(
        by_label.values(), by_label.keys(), frameon=False, fontsize="small", loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )  # fmt: skip


def _point(axes: Axes, row: CurveRow, at: float, **look: Any) -> None:
    low, high = row.identity_95
    error = [[max(row.identity - low, 0.0)], [max(high - row.identity, 0.0)]]
    axes.errorbar(at, row.identity, yerr=error, capsize=2, elinewidth=0.8, **look)


def _kind(row: CurveRow) -> str:
    """What a row has in common with those of other step counts: "ddim, 20 steps" -> "ddim"."""
    return ", ".join(each for each in row.row.split(", ") if not each.endswith(" steps"))
