"""Cost against quality of the presets and of what else was tried, on the shipped model.

Draws the same held-out people with each, pairs the pictures with the quality preset's, and times
the presets in turns. Writes its section of docs/quality.md when it is not quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.analysis.stats import paired_ratio
from benchmarks.harness.options import Options, flag
from benchmarks.harness.record import header_of
from benchmarks.harness.workload import SEED
from benchmarks.pictures.presets import presets_in_turns
from benchmarks.quality.cases import Pixels, cases, chosen_of, in_parallel
from benchmarks.quality.curve import (
    curve_variants,
    draw_curve,
    structure_difference,
    with_curve,
)
from benchmarks.quality.kept import built_bundle, kept_pictures, world_pictures
from benchmarks.quality.page import DOCS
from benchmarks.quality.scores import Judge, PictureScores, ends, mean
from benchmarks.quality.sight import Sight, pixel_distances
from benchmarks.schema.quality import CurveFacts, CurveRecord, CurveRow, SeenColumns
from benchmarks.schema.record import Header
from engines.bundle.records import Count
from engines.engine import Provider
from engines.threads import processors
from runtime import FaceDiffuser, Preset

# Gains of identity are a few thousandths.
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class CurveOptions(Options):
    """What of the quality benchmark's options the curve follows."""

    pictures: int
    rows: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            "beside the full method, or of the curve beside the presets; then no page is written "
            "(default: all)",
            metavar="NAME",
        ),
    )
    rounds: Count = field(
        default=9, metadata=flag("in which the curve times the presets in turns", quick=2)
    )


def header_of_rows(name: str, options: CurveOptions, seeds: Sequence[int] = ()) -> Header:
    """A record's header. One of some rows counts as quick, so that a page shows the whole one."""
    header = header_of(name, options, gpu=None, seeds=seeds)
    return replace(header, quick=header.quick or bool(options.rows))


def measured_curve(options: CurveOptions) -> CurveRecord:
    """A row per variant, the quality preset first."""
    listed = cases(options.pictures)
    presets = [str(each) for each in Preset]
    chosen = chosen_of(curve_variants(), options.rows, quick=options.quick, always=presets)
    bundle = built_bundle()
    facts = _timed(bundle, options.rounds)
    truth = [case.truth() for case in listed]
    judge, sight = Judge(), Sight(listed, truth, world_pictures(quick=options.quick))
    rows: list[CurveRow] = []
    reference: tuple[list[Pixels], PictureScores] | None = None
    for name, (pictures, evaluations) in in_parallel(
        partial(kept_pictures, bundle, count=len(listed)), chosen
    ):
        scores = judge.scores(pictures, listed)
        reference = reference or (pictures, scores)
        seen = sight.columns(pictures, reference[0])
        rows.append(_row(name, pictures, evaluations, scores, reference, seen))
    record = CurveRecord(
        header=header_of_rows("curve", options, seeds=[SEED]), facts=facts, rows=tuple(rows)
    )
    if not options.quick and not options.rows:
        draw_curve(rows, DOCS / "quality" / "curve.png")
        page = DOCS / "quality.md"
        page.write_text(with_curve(page.read_text(encoding="utf-8"), record), encoding="utf-8")
    return record


def _timed(bundle: Path, rounds: int) -> CurveFacts:
    """The presets in turns."""
    provider, threads = Provider.ONNXRUNTIME_CPU, processors()
    with FaceDiffuser.open(bundle, provider=provider, threads=threads) as opened:
        spent = presets_in_turns(opened, rounds).times
    quality = spent[Preset.QUALITY]
    return CurveFacts(
        provider=str(provider),
        threads=threads,
        rounds=rounds,
        picture_ms={str(each): round(median(times), 1) for each, times in spent.items()},
        speedup={
            str(each): round(paired_ratio(quality, times).ratio, 3) for each, times in spent.items()
        },
    )


def _row(
    name: str,
    pictures: list[Pixels],
    evaluations: int,
    scores: PictureScores,
    reference: tuple[list[Pixels], PictureScores],
    seen: SeenColumns,
) -> CurveRow:
    of_reference, reference_scores = reference
    gain = None if scores is reference_scores else scores.identity - reference_scores.identity
    return CurveRow(
        row=name,
        pictures=len(pictures),
        evaluations=evaluations,
        identity=mean(scores.identity, _DIGITS),
        identity_95=ends(scores.identity, _DIGITS),
        identity_gain=None if gain is None else mean(gain, _DIGITS),
        identity_gain_95=None if gain is None else ends(gain, _DIGITS),
        scene=mean(scores.scene, _DIGITS),
        scene_95=ends(scores.scene, _DIGITS),
        prompt=mean(scores.prompt, _DIGITS),
        pixel_difference=mean(pixel_distances(pictures, of_reference), 5),
        structure_difference=round(structure_difference(pictures, of_reference), 5),
        **vars(seen),
    )
