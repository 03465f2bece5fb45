"""The report's plots, each from one record: a PNG's bytes, or None where nothing was measured."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pictures.record import PresetsRecord
from benchmarks.quality.cost_plot import draw_costs
from benchmarks.schema.latency import Kind, LatencyRecord
from benchmarks.schema.peers import PeersRecord
from benchmarks.schema.quality import CurveRecord, QualityRecord
from benchmarks.schema.record import Record
from benchmarks.schema.roofline import RooflineRecord
from benchmarks.schema.scaling import LineFit, ScalingRecord, ScalingRow
from benchmarks.schema.throughput import ThroughputRecord, ThroughputRow

WIDTH_IN, HEIGHT_IN, DPI = 8.0, 3.6, 110
# Colors that stay apart for color-blind readers (Okabe and Ito).
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_GRAY = "#888888"

# What a picture's bar is made of: its label, and the kind and name of the row.
_PARTS: tuple[tuple[str, Kind, str], ...] = (
    ("encode", "picture", "encode"),
    ("scene", "stage", "scene"),
    ("fusion", "stage", "fusion"),
    ("subject", "stage", "subject"),
    ("decode", "picture", "decode"),
)


def plot_of(record: Record, speed: LatencyRecord | None) -> bytes | None:
    """A record's plot, if its benchmark has one and something was measured.

    speed: of the model whose quality was measured, to be told beside it.
    """
    match record:
        case LatencyRecord():
            return latency_plot(record)
        case ThroughputRecord():
            return throughput_plot(record)
        case PresetsRecord():
            return presets_plot(record)
        case ScalingRecord():
            return scaling_plot(record)
        case PeersRecord():
            return peers_plot(record)
        case RooflineRecord():
            return roofline_plot(record)
        case QualityRecord():
            return quality_plot(record, speed)
        case _:
            return None


def latency_plot(record: LatencyRecord) -> bytes | None:
    """Where one picture's time goes, a bar per provider."""
    rows = record.measured()
    providers = list(dict.fromkeys(row.provider for row in rows))
    if not providers:
        return None
    figure = _figure(height=1.2 + 0.6 * len(providers))
    axes = figure.subplots()
    for place, provider in enumerate(providers):
        found = {(row.kind, row.name): row.p50_ms for row in rows if row.provider == provider}
        _bar(axes, place, {label: found.get((kind, name), 0.0) for label, kind, name in _PARTS})
    _name_bars(axes, providers)
    return _png(figure)


def _bar(axes: Axes, place: int, parts: Mapping[str, float]) -> None:
    """One picture's milliseconds as the parts that make it up."""
    left = 0.0
    for color, (label, width) in zip(COLORS, parts.items(), strict=False):
        axes.barh(place, width, left=left, color=color, label=None if place else label)
        left += width


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("ms per picture, medians")
    parts = len(axes.get_legend_handles_labels()[1])
    axes.legend(ncols=parts, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def throughput_plot(record: ThroughputRecord) -> bytes | None:
    """Pictures a second along images per call and along concurrent requests, knees marked."""
    rows = record.measured()
    if not rows:
        return None
    knees = record.knees()
    figure = _figure()
    along_images, along_processes = figure.subplots(1, 2, sharey=True)
    _throughput_curve(
        along_images, "images per call", {r.images: r for r in rows if r.processes == 1}, knees
    )
    _throughput_curve(
        along_processes,
        "concurrent requests",
        {r.processes: r for r in rows if r.images == 1},
        knees,
    )
    along_images.set_ylim(bottom=0)  # both share it, so only once all is drawn
    along_images.set_ylabel("pictures per second")
    return _png(figure)


def _throughput_curve(
    axes: Axes, label: str, rows: dict[int, ThroughputRow], knees: set[tuple[int, int]]
) -> None:
    x = sorted(rows)
    axes.plot(x, [rows[value].pictures_per_s for value in x], "o-", color=COLORS[0])
    for value in x:
        if (rows[value].images, rows[value].processes) in knees:
            place = (value, rows[value].pictures_per_s)
            axes.annotate("knee", place, (0, -16), textcoords="offset points", ha="center")
    axes.set_xlabel(label)
    axes.set_xticks(x)
    axes.margins(x=0.08)


def presets_plot(record: PresetsRecord) -> bytes | None:
    """A picture's time by preset: what the U-Nets take, and what every preset pays."""
    if not record.rows:
        return None
    figure = _figure(height=1.2 + 0.6 * len(record.rows))
    axes = figure.subplots()
    for place, row in enumerate(reversed(record.rows)):
        unets_ms = row.p50_ms - row.coders_ms
        _bar(axes, place, {"U-Nets and fusion": unets_ms, "encoders and decoder": row.coders_ms})
        if row.times_as_fast is not None:
            axes.text(row.p50_ms, place, f" {row.times_as_fast:.2f} times as fast", va="center")
    _name_bars(axes, [row.preset for row in reversed(record.rows)])
    return _png(figure)


def scaling_plot(record: ScalingRecord) -> bytes | None:
    """Time along each axis with its fit, and the FLOPs scaled to the first point."""
    names = list(dict.fromkeys(row.axis for row in record.rows))
    if not names:
        return None
    figure = _figure()
    panes = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panes, names, strict=True):
        rows = [row for row in record.rows if row.axis == name]
        fit = record.facts.fits[name]
        _scaling_pane(axes, rows, fit if isinstance(fit, LineFit) else None)
        axes.set_xlabel(name)
    panes[0].set_ylabel("ms per request")
    panes[0].legend(frameon=False, fontsize="small")
    return _png(figure)


def _scaling_pane(axes: Axes, rows: list[ScalingRow], fit: LineFit | None) -> None:
    x, first = [row.value for row in rows], rows[0]
    axes.plot(x, [row.p50_ms for row in rows], "o", color=COLORS[0], label="measured")
    if fit is not None:
        line = [fit.intercept_ms + fit.slope_ms * value for value in x]
        axes.plot(x, line, color=COLORS[0], label="fit")
    expected = [first.p50_ms * row.flop / first.flop for row in rows]
    axes.plot(x, expected, "--", color=_GRAY, label="as the FLOPs")
    axes.set_xticks(x)
    axes.set_ylim(bottom=0)


def peers_plot(record: PeersRecord) -> bytes | None:
    """How many times as long each peer takes, with 95 % intervals; right of 1 is slower than us."""
    rows = record.compared()
    if not rows:
        return None
    figure = _figure(height=1.2 + 0.35 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        middle = row.times_as_long
        error = [[middle - row.low], [row.high - middle]]
        axes.errorbar(middle, place, xerr=error, fmt="o", capsize=4, color=COLORS[0])
    axes.axvline(1.0, color=_GRAY, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{row.peer} ({row.work})" for row in reversed(rows)])
    axes.set_xlabel(f"times as long as {rows[0].against}")
    return _png(figure)


def roofline_plot(record: RooflineRecord) -> bytes | None:
    """Each component under the roof of this machine's own peaks."""
    if not record.rows:
        return None
    peaks = record.facts.peaks
    matrix, memory = peaks.flop_per_s["fp32"] / 1e9, peaks.bytes_per_s / 1e9
    figure = _figure()
    axes = figure.subplots()
    x = [row.flop_per_byte for row in record.rows]
    ends = (min([*x, matrix / memory]) / 2, max([*x, matrix / memory]) * 2)
    roof = [ends[0], matrix / memory, ends[1]]
    axes.plot(roof, [min(matrix, memory * value) for value in roof], color=_GRAY)
    for color, row in zip(cycle(COLORS), record.rows, strict=False):
        axes.plot(row.flop_per_byte, row.gflop_per_s, "o", color=color, label=row.component.value)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP per byte of weights, inputs and outputs")
    axes.set_ylabel("GFLOP per second")
    axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def quality_plot(record: QualityRecord, speed: LatencyRecord | None) -> bytes | None:
    """Identity and prompt consistency of each variant; the title carries the speed beside them."""
    if not record.rows:
        return None
    figure = _figure(height=1.2 + 0.24 * len(record.rows))
    axes = figure.subplots()
    places = range(len(record.rows))[::-1]
    for color, name in ((COLORS[0], "identity"), (COLORS[1], "prompt")):
        means = [getattr(row, name) for row in record.rows]
        ends = [getattr(row, f"{name}_95") for row in record.rows]
        error = [
            [max(mean - low, 0.0) for mean, (low, _) in zip(means, ends, strict=True)],
            [max(high - mean, 0.0) for mean, (_, high) in zip(means, ends, strict=True)],
        ]
        axes.errorbar(means, places, xerr=error, fmt="o", markersize=4, color=color, label=name)
    axes.set_yticks(places, [row.row for row in record.rows], fontsize="small")
    axes.set_xlabel("score, with its 95 % interval")
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    wholes = [] if speed is None else [r for r in speed.measured() if r.name == "pipeline"]
    if wholes:
        fastest = min(wholes, key=lambda row: row.p50_ms)
        axes.set_title(f"one picture: {fastest.p50_ms:.0f} ms on {fastest.provider}", pad=24)
    return _png(figure)


def cost_plot(records: Sequence[Record]) -> bytes | None:
    """Identity against cost: U-Net evaluations of the curve's rows, else steps of the quality's.

    None where no record has both.
    """
    curve = next((each for each in records if isinstance(each, CurveRecord) and each.rows), None)
    quality = next((each for each in records if isinstance(each, QualityRecord)), None)
    if curve is not None:
        figure = _figure(height=4.0)
        draw_costs(figure.subplots(), curve.rows)
        return _png(figure)
    if quality is None:
        return None
    points = [
        (row.row, steps, row.identity, row.identity_95)
        for row in quality.rows
        if (steps := _steps_of(row.row, quality.facts.steps)) is not None
    ]
    if len(points) < 2:
        return None
    figure = _figure(height=4.0)
    axes = figure.subplots()
    for color, (name, cost, mean, (low, high)) in zip(cycle(COLORS), points, strict=False):
        error = [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]
        axes.errorbar(cost, mean, yerr=error, fmt="o", capsize=3, color=color, label=name)
    axes.set_xlabel(
        "steps, all else as the full method (cost of presets and solvers: not measured)"
    )
    axes.set_ylabel("identity, with its 95 % interval")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _png(figure)


def _steps_of(row: str, steps: int) -> int | None:
    """The steps of a row that differs from the full method in nothing else."""
    if row == "full method":
        return steps
    number, space, word = row.partition(" ")
    return int(number) if space and word == "steps" and number.isdecimal() else None


def _figure(height: float = HEIGHT_IN) -> Figure:
    return Figure(figsize=(WIDTH_IN, height), dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
