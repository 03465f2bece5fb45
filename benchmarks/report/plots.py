"""The report's plots, each from one record: a PNG's bytes, or None where nothing was measured."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

from benchmarks.analysis.fits import Line
from benchmarks.harness.record import Status

Entry = Mapping[str, Any]
Row = Mapping[str, Any]

WIDTH_IN, HEIGHT_IN, DPI = 8.0, 3.6, 110
# Colors that stay apart for color-blind readers (Okabe and Ito).
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_GRAY = "#888888"


def latency_plot(entry: Entry) -> bytes | None:
    """Where one picture's time goes, a bar per provider."""
    rows = _done(entry)
    parts = [
        ("encode", "picture", "encode"), ("scene", "stage", "scene"),
        ("fusion", "stage", "fusion"), ("subject", "stage", "subject"),
        ("decode", "picture", "decode"),
    ]  # fmt: skip
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    if not providers:
        return None
    figure = _figure(height=1.2 + 0.6 * len(providers))
    axes = figure.subplots()
    for place, provider in enumerate(providers):
        left = 0.0
        found = {(r["kind"], r["name"]): r["p50_ms"] for r in rows if r["provider"] == provider}
        for color, (label, kind, name) in zip(COLORS, parts, strict=False):
            width = found.get((kind, name), 0.0)
            axes.barh(place, width, left=left, color=color, label=None if place else label)
            left += width
    axes.set_yticks(range(len(providers)), providers)
    axes.set_xlabel("ms per picture, medians")
    axes.legend(ncols=len(parts), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return _png(figure)


def throughput_plot(entry: Entry) -> bytes | None:
    """Pictures a second along images per call and along concurrent requests, knees marked."""
    rows = _done(entry)
    if not rows:
        return None
    figure = _figure()
    panes = figure.subplots(1, 2, sharey=True)
    for axes, moving, fixed, label in (
        (panes[0], "images", "processes", "images per call"),
        (panes[1], "processes", "images", "concurrent requests"),
    ):
        curve = sorted((row for row in rows if row[fixed] == 1), key=lambda row: row[moving])
        x, y = [row[moving] for row in curve], [row["pictures_per_s"] for row in curve]
        axes.plot(x, y, "o-", color=COLORS[0])
        for row in curve:
            if row["knee"]:
                axes.annotate(
                    "knee",
                    (row[moving], row["pictures_per_s"]),
                    (0, -16),
                    textcoords="offset points",
                    ha="center",
                )
        axes.set_xlabel(label)
        axes.set_xticks(x)
        axes.margins(x=0.08)
    panes[0].set_ylim(bottom=0)  # both share it, so only once all is drawn
    panes[0].set_ylabel("pictures per second")
    return _png(figure)


def scaling_plot(entry: Entry) -> bytes | None:
    """Time along each axis with its fit, and the FLOPs scaled to the first point."""
    rows = _done(entry)
    if not rows:
        return None
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure = _figure()
    panes = figure.subplots(1, len(axes_names), squeeze=False)[0]
    for axes, name in zip(panes, axes_names, strict=True):
        points = [row for row in rows if row["axis"] == name]
        x, ms = [row["value"] for row in points], [row["p50_ms"] for row in points]
        axes.plot(x, ms, "o", color=COLORS[0], label="measured")
        fit = entry["facts"]["fits"][name]
        if "slope_ms" in fit:
            line = Line(fit["intercept_ms"], fit["slope_ms"], fit["r2"])
            axes.plot(x, [line.intercept + line.slope * v for v in x], color=COLORS[0], label="fit")
        first = points[0]
        expected = [ms[0] * row["flop"] / first["flop"] for row in points]
        axes.plot(x, expected, "--", color=_GRAY, label="as the FLOPs")
        axes.set_xlabel(name)
        axes.set_xticks(x)
        axes.set_ylim(bottom=0)
    panes[0].set_ylabel("ms per request")
    panes[0].legend(frameon=False, fontsize="small")
    return _png(figure)


def peers_plot(entry: Entry) -> bytes | None:
    """How many times as long each peer takes, with 95 % intervals; right of 1 is slower than us."""
    rows = [row for row in _done(entry) if "times_as_long" in row]
    if not rows:
        return None
    figure = _figure(height=1.2 + 0.35 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        middle = row["times_as_long"]
        error = [[middle - row["low"]], [row["high"] - middle]]
        axes.errorbar(middle, place, xerr=error, fmt="o", capsize=4, color=COLORS[0])
    axes.axvline(1.0, color=_GRAY, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{row['peer']} ({row['work']})" for row in reversed(rows)])
    axes.set_xlabel(f"times as long as {rows[0]['against']}")
    return _png(figure)


def roofline_plot(entry: Entry) -> bytes | None:
    """Each component under the roof of this machine's own peaks."""
    rows = _done(entry)
    if not rows:
        return None
    peak = entry["facts"]["peaks"]
    matrix, memory = peak["flop_per_s"]["fp32"] / 1e9, peak["bytes_per_s"] / 1e9
    figure = _figure()
    axes = figure.subplots()
    x = [row["flop_per_byte"] for row in rows]
    ends = (min([*x, matrix / memory]) / 2, max([*x, matrix / memory]) * 2)
    roof = [ends[0], matrix / memory, ends[1]]
    axes.plot(roof, [min(matrix, memory * value) for value in roof], color=_GRAY)
    for color, row in zip(COLORS, rows, strict=False):
        point = (row["flop_per_byte"], row["gflop_per_s"])
        axes.plot(*point, "o", color=color, label=row["component"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP per byte of weights, inputs and outputs")
    axes.set_ylabel("GFLOP per second")
    axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def quality_plot(quality: Entry, latency: Entry | None) -> bytes | None:
    """Identity and prompt consistency of each variant; the title carries the speed beside them."""
    rows = [row for row in quality["rows"] if "identity" in row and "prompt" in row]
    if not rows:
        return None
    figure = _figure(height=4.2)
    axes = figure.subplots()
    for number, row in enumerate(rows):
        color = COLORS[number % len(COLORS)]
        axes.plot(row["prompt"], row["identity"], "o", color=color)
        axes.annotate(row["row"], (row["prompt"], row["identity"]), (4, 4),
                      textcoords="offset points", fontsize="x-small")  # fmt: skip
    axes.set_xlabel("prompt consistency")
    axes.set_ylabel("identity")
    speed = [] if latency is None else [r for r in _done(latency) if r["name"] == "pipeline"]
    if speed:
        fastest = min(speed, key=lambda row: row["p50_ms"])
        axes.set_title(f"one picture: {fastest['p50_ms']:.0f} ms on {fastest['provider']}")
    return _png(figure)


PLOTS: dict[str, Callable[[Entry], bytes | None]] = {
    "latency": latency_plot,
    "throughput": throughput_plot,
    "scaling": scaling_plot,
    "peers": peers_plot,
    "roofline": roofline_plot,
}


def _done(entry: Entry) -> list[Row]:
    rows: Sequence[Row] = entry["rows"]
    return [row for row in rows if row.get("status") == Status.MEASURED]


def _figure(height: float = HEIGHT_IN) -> Figure:
    return Figure(figsize=(WIDTH_IN, height), dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
