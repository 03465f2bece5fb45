"""Which score notices which fault: seven corruptions of the same pictures, tested pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from benchmarks.analysis.significance import Shift, Values, paired_shift
from benchmarks.harness.options import Options
from benchmarks.harness.record import header_of
from benchmarks.quality.cases import BASE, FULL, Case, Pixels, Variant, cases, in_parallel
from benchmarks.quality.corruptions import Corruption, corruptions
from benchmarks.quality.frechet import Reference
from benchmarks.quality.kept import built_bundle, kept_pictures, world_pictures
from benchmarks.quality.noticed_page import with_noticed
from benchmarks.quality.page import DOCS
from benchmarks.quality.scores import Judge
from benchmarks.quality.sight import Sight, pixel_distances
from benchmarks.schema.quality import Measure, NoticedFacts, NoticedRecord, NoticedRow
from mini.critics import critics_record

QUICK_PICTURES = 6


@dataclass(frozen=True, kw_only=True)
class NoticedOptions(Options):
    """What of the quality benchmark's options this follows."""

    pictures: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One set of pictures: what each measure says of each [n], and the features of all."""

    values: dict[Measure, Values]
    features: Values


def measured_noticed(options: NoticedOptions) -> NoticedRecord:
    """A row for each corruption and measure."""
    count = min(options.pictures, QUICK_PICTURES) if options.quick else options.pictures
    chosen = [each for each in corruptions() if each.quick or not options.quick]
    drawn = _drawn(chosen, count, quick=options.quick)
    listed = cases(count)
    truth = [case.truth() for case in listed]
    world = world_pictures(quick=options.quick)
    judge, sight = Judge(), Sight(listed, truth, world)
    reference = sight.reference
    full, base = drawn[FULL.name], drawn[BASE.name]
    score = partial(scored, judge, sight, listed, full)
    plain, rows = score(base), list[NoticedRow]()
    for each in tqdm(chosen, desc="scoring", unit="corruption"):
        found = score(drawn[each.name] if each.changed is None else each.changed(base))
        rows += rows_of(each.name, found, plain, reference)
    record = NoticedRecord(
        header=header_of("noticed", options, gpu=None, seeds=[0]),
        facts=NoticedFacts(
            pictures=count,
            world_pictures=len(world),
            frechet=round(reference.distance(plain.features), 3),
            frechet_error=round(reference.error(plain.features), 3),
            frechet_world=round(reference.distance(sight.features(np.stack(truth))), 3),
            equal_error_rate=critics_record().through_vae.rate,
        ),
        rows=tuple(rows),
    )
    if not options.quick:
        page = DOCS / "quality.md"
        page.write_text(with_noticed(page.read_text(encoding="utf-8"), record), encoding="utf-8")
    return record


def scored(
    judge: Judge, sight: Sight, listed: list[Case], full: list[Pixels], pictures: list[Pixels]
) -> Scored:
    """full: what each picture's distances are from."""
    seen, probed = sight.seen(pictures), judge.scores(pictures, listed)
    return Scored(
        values={
            Measure.PIXELS: pixel_distances(pictures, full),
            Measure.PERCEPTUAL: sight.perceptual(pictures, full),
            # Of its logarithm, so that half and twice the energy are as far away.
            Measure.SHARPNESS: np.log2(seen.sharpness),
            Measure.LIKENESS: seen.least,
            Measure.IDENTITY: probed.identity,
            Measure.SCENE: probed.scene,
            Measure.PROMPT: probed.prompt,
        },
        features=seen.features,
    )


def rows_of(name: str, found: Scored, plain: Scored, reference: Reference) -> list[NoticedRow]:
    """A corruption's row of each measure."""
    shifts = {
        measure: paired_shift(values, plain.values[measure])
        for measure, values in found.values.items()
    }
    rows = [_row(name, measure, plain.values[measure].mean(), each)
            for measure, each in shifts.items()]  # fmt: skip
    before, after = (reference.distance(each.features) for each in (plain, found))
    rows.append(
        NoticedRow(
            corruption=name,
            measure=Measure.FRECHET,
            base=round(before, 4),
            shift=round(after - before, 4),
            p=reference.paired_p(found.features, plain.features),
        )
    )
    return sorted(rows, key=lambda row: list(Measure).index(row.measure))


def _row(name: str, measure: Measure, base: float, shift: Shift) -> NoticedRow:
    return NoticedRow(
        corruption=name,
        measure=measure,
        base=round(float(base), 5),
        shift=round(shift.mean, 5),
        shift_95=(round(shift.low, 5), round(shift.high, 5)),
        p=shift.p,
    )


def _drawn(chosen: Sequence[Corruption], count: int, *, quick: bool) -> dict[str, list[Pixels]]:
    """By name, the pictures of all that is drawn, what they are compared with first."""
    listed: list[Variant] = [FULL, BASE, *(each.drawn for each in chosen if each.drawn)]
    bundle = built_bundle(in_8_bits=not quick)
    found = in_parallel(partial(kept_pictures, bundle, count=count), listed)
    return {name: pictures for name, (pictures, _) in found}
