"""Identity preservation and prompt consistency of the shipped model, end to end (Tables 1, 3, 4).

Draws held-out people through the real runtime and lets probes, trained on the world's truth, say
who and what is to be seen. Writes docs/quality.md with its figures when it is not quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness.measure import Measure
from benchmarks.harness.options import flag
from benchmarks.harness.record import table_of
from benchmarks.quality.cases import (
    BASE,
    FULL,
    STEPS,
    Case,
    Pixels,
    Variant,
    cases,
    chosen_of,
    in_parallel,
    variants,
)
from benchmarks.quality.curve import with_curve
from benchmarks.quality.figures import draw_figures
from benchmarks.quality.kept import built_bundle, kept_pictures, world_pictures
from benchmarks.quality.noticed import NoticedOptions, measured_noticed
from benchmarks.quality.noticed_page import with_noticed
from benchmarks.quality.page import DOCS, quality_page
from benchmarks.quality.paired import CurveOptions, header_of_rows, measured_curve
from benchmarks.quality.scores import (
    IDENTITY_ATTRIBUTES,
    Judge,
    PictureScores,
    Scores,
    chance_scores,
    ends,
    mean,
)
from benchmarks.quality.sight import Sight, pixel_distances
from benchmarks.schema.quality import (
    Chance,
    CurveRecord,
    Ends,
    NoticedRecord,
    QualityFacts,
    QualityRecord,
    QualityRow,
    SeenColumns,
)
from benchmarks.schema.results import records_of
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from mini.training.probes import through_vae
from runtime import FaceDiffuser


def _pictures_of_a_row(word: str) -> int:
    if not word.isdecimal() or int(word) < 2:
        raise argparse.ArgumentTypeError(
            f"{word}: expected at least 2, one of one person and one of two; type: --pictures 24"
        )
    return int(word)


@dataclass(frozen=True, kw_only=True)
class QualityOptions(CurveOptions, NoticedOptions):
    pictures: int = field(
        default=200, metadata=flag("of each row, at least 2", quick=12, type=_pictures_of_a_row)
    )
    curve: bool = field(
        default=False, metadata=flag("cost against quality of the presets and solvers instead")
    )
    noticed: bool = field(
        default=False, metadata=flag("which score notices which fault of the pictures instead")
    )


def measured(options: QualityOptions) -> QualityRecord | CurveRecord | NoticedRecord:
    """The variants of the method, or the curve, or what the scores notice."""
    if options.noticed:
        return measured_noticed(options)
    return measured_curve(options) if options.curve else measured_quality(options)


def measured_quality(options: QualityOptions) -> QualityRecord:
    """A row per variant: means, 95 % intervals and the number of pictures."""
    listed = cases(options.pictures)
    chosen = chosen_of(variants(), options.rows, quick=options.quick, always=[BASE.name])
    judge = Judge()
    checkpoint = Checkpoint.open(SHIPPED_MODEL)
    truth = [case.truth() for case in listed]
    through = list(through_vae(checkpoint.vae_decoder(), np.stack(truth)))
    sight = Sight(listed, truth, world_pictures(quick=options.quick))
    rows = [
        _row("the world's own pictures", judge.scores(truth, listed), sight.columns(truth)),
        _row("the same through the VAE", judge.scores(through, listed), sight.columns(through)),
    ]
    pictures: dict[str, list[Pixels]] = {}
    base: PictureScores | None = None
    bundles = {
        each.name: built_bundle(each.precision, in_8_bits=each.quantization is not None)
        for each in chosen
    }
    for name, found in in_parallel(partial(_pictures, bundles, len(listed)), chosen):
        pictures[name] = found
    for name, found in pictures.items():
        scores = judge.scores(found, listed)
        base = base or scores  # the first row that is drawn
        seen = sight.columns(found, pictures.get(FULL.name))
        far = None if name == BASE.name else pixel_distances(found, pictures[BASE.name])
        rows.append(_row(name, scores, seen, base, far))
    record = QualityRecord(
        header=header_of_rows("quality", options),
        facts=_facts(judge, listed, truth, through, pictures),
        rows=tuple(rows),
    )
    if not options.quick and not options.rows:
        with FaceDiffuser.open(built_bundle()) as face_diffuser:
            draw_figures(rows, face_diffuser, listed, pictures, DOCS / "quality")
        page = quality_page(record)
        for curve in records_of("curve")[-1:]:
            if isinstance(curve, CurveRecord):
                page = with_curve(page, curve)
        for noticed in records_of("noticed")[-1:]:
            if isinstance(noticed, NoticedRecord):
                page = with_noticed(page, noticed)
        (DOCS / "quality.md").write_text(page, encoding="utf-8")
    return record


def _facts(
    judge: Judge,
    listed: list[Case],
    truth: list[Pixels],
    through: list[Pixels],
    pictures: Mapping[str, list[Pixels]],
) -> QualityFacts:
    full, chance = pictures[BASE.name], chance_scores(listed)
    return QualityFacts(
        steps=STEPS,
        chance=Chance(identity=round(chance.identity, 3), scene=round(chance.scene, 3)),
        probe_accuracy=_rounded(judge.accuracy(truth, listed)),
        probe_accuracy_through_vae=_rounded(judge.accuracy(through, listed)),
        full_method_accuracy=_rounded(judge.accuracy(full, listed)),
        fp16_fp32_mean_difference=_mean_difference(full, pictures.get("fp32 bundle")),
        bfloat16_mean_difference=_mean_difference(full, pictures.get("OpenVINO, bfloat16")),
    )


def _pictures(bundles: Mapping[str, Path], count: int, variant: Variant) -> list[Pixels]:
    return kept_pictures(bundles[variant.name], variant, count)[0]


def _row(
    name: str,
    scores: PictureScores,
    seen: SeenColumns,
    full: PictureScores | None = None,
    far: Scores | None = None,
) -> QualityRow:
    """full: the full method's scores, where gains over them are to be told case by case. far: each
    picture's distance from the full method's, of the other rows that the model draws."""
    gain = None if full is None else scores.identity - full.identity
    return QualityRow(
        row=name,
        pictures=len(scores.identity),
        identity=mean(scores.identity),
        identity_95=ends(scores.identity),
        identity_by_people=_by_people(scores.identity),
        scene=mean(scores.scene),
        scene_95=ends(scores.scene),
        pose=mean(scores.pose),
        people=mean(scores.people),
        prompt=mean(scores.prompt),
        prompt_95=ends(scores.prompt),
        prompt_by_people=_by_people(scores.prompt),
        identity_gain=None if gain is None or far is None else mean(gain, 4),
        identity_gain_95=None if gain is None else ends(gain),
        prompt_gain_95=None if full is None else ends(scores.prompt - full.prompt),
        pixel_difference=None if far is None else mean(far, 5),
        pixel_difference_p95=None if far is None else round(float(np.percentile(far, 95)), 5),
        **vars(seen),
    )


def _by_people(values: Scores) -> Ends:
    """Means of the cases with one person and of those with two, which come in turn."""
    return mean(values[0::2]), mean(values[1::2])


def _mean_difference(first: Sequence[Pixels], second: Sequence[Pixels] | None) -> float | None:
    """Mean absolute difference of pixels, as a share of their range."""
    if second is None:
        return None
    return mean(pixel_distances(first, second), 5)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    assert set(shares) == set(IDENTITY_ATTRIBUTES)
    return {name: round(share, 3) for name, share in shares.items()}


MEASURE = Measure(options=QualityOptions, measure=measured, text=table_of)
