"""Identity preservation and prompt consistency of the shipped model, end to end (Tables 1, 3, 4).

Draws held-out people through the real runtime and lets probes, trained on the world's truth, say
who and what is to be seen. Writes docs/quality.md with its figures when it is not quick.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.harness.machine import usable_cpus
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.quality.cases import STEPS, Case, Pixels, Variant, cases, drawn, variants
from benchmarks.quality.curve import with_curve
from benchmarks.quality.figures import draw_figures
from benchmarks.quality.page import BUNDLES, DOCS, quality_page
from benchmarks.quality.paired import CurveOptions, measured_curve
from benchmarks.quality.scores import (
    IDENTITY_ATTRIBUTES,
    Judge,
    PictureScores,
    Scores,
    chance_scores,
    interval,
)
from benchmarks.schema.quality import (
    Chance,
    CurveRecord,
    Ends,
    QualityFacts,
    QualityRecord,
    QualityRow,
)
from benchmarks.schema.results import records_of
from engines.bundle.manifest import Precision
from export.build import draw
from export.bundle import build_bundle
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from export.options import BuildOptions
from mini.training.probes import through_vae
from runtime import FaceDiffuser


def _pictures_of_a_row(word: str) -> int:
    if not word.isdecimal() or int(word) < 2:
        raise argparse.ArgumentTypeError(
            f"{word}: expected at least 2, one of one person and one of two; type: --pictures 24"
        )
    return int(word)


@dataclass(frozen=True, kw_only=True)
class QualityOptions(CurveOptions):
    pictures: int = field(
        default=200, metadata=flag("of each row, at least 2", quick=24, type=_pictures_of_a_row)
    )
    curve: bool = field(
        default=False, metadata=flag("cost against quality of the presets and solvers instead")
    )


def measured(options: QualityOptions) -> QualityRecord | CurveRecord:
    """The variants of the method, or the curve."""
    return measured_curve(options) if options.curve else measured_quality(options)


def measured_quality(options: QualityOptions) -> QualityRecord:
    """A row per variant: means, 95 % intervals and the number of pictures."""
    listed = cases(options.pictures)
    chosen = [variant for variant in variants() if variant.quick or not options.quick]
    judge = Judge()
    checkpoint = Checkpoint.open(SHIPPED_MODEL)
    truth = [case.truth() for case in listed]
    through = list(through_vae(checkpoint.vae_decoder(), np.stack(truth)))
    rows = [
        _row("the world's own pictures", judge.scores(truth, listed)),
        _row("the same through the VAE", judge.scores(through, listed)),
    ]
    pictures: dict[str, list[Pixels]] = {}
    full: PictureScores | None = None  # of the first row that is drawn
    for name, found in _drawn_in_parallel(_built_bundles(checkpoint, chosen), chosen, len(listed)):
        pictures[name], scores = found, judge.scores(found, listed)
        full = full or scores
        rows.append(_row(name, scores, full))
    record = QualityRecord(
        header=header_of("quality", options, gpu=None),
        facts=_facts(judge, listed, truth, through, pictures),
        rows=tuple(rows),
    )
    if not options.quick:
        with FaceDiffuser.open(BUNDLES / Precision.FP16) as face_diffuser:
            draw_figures(rows, face_diffuser, listed, pictures, DOCS / "quality")
        page = quality_page(record)
        for curve in records_of("curve")[-1:]:
            if isinstance(curve, CurveRecord):
                page = with_curve(page, curve)
        (DOCS / "quality.md").write_text(page, encoding="utf-8")
    return record


def _facts(
    judge: Judge,
    listed: list[Case],
    truth: list[Pixels],
    through: list[Pixels],
    pictures: Mapping[str, list[Pixels]],
) -> QualityFacts:
    full, chance = pictures["full method"], chance_scores(listed)
    return QualityFacts(
        steps=STEPS,
        chance=Chance(identity=round(chance.identity, 3), scene=round(chance.scene, 3)),
        probe_accuracy=_rounded(judge.accuracy(truth, listed)),
        probe_accuracy_through_vae=_rounded(judge.accuracy(through, listed)),
        full_method_accuracy=_rounded(judge.accuracy(full, listed)),
        fp16_fp32_mean_difference=_mean_difference(full, pictures.get("fp32 bundle")),
        bfloat16_mean_difference=_mean_difference(full, pictures.get("OpenVINO, bfloat16")),
    )


def _built_bundles(checkpoint: Checkpoint, chosen: list[Variant]) -> dict[Precision, Path]:
    """The shipped model in the precisions that are asked for; what an earlier run built is kept."""
    bundles = {variant.precision: BUNDLES / variant.precision for variant in chosen}
    for precision, bundle in bundles.items():
        options = BuildOptions(precision=precision)
        build_bundle(bundle, checkpoint, options, tqdm.write, (), draw=draw)
    return bundles


def _drawn_in_parallel(
    bundles: dict[Precision, Path], chosen: list[Variant], count: int
) -> Iterator[tuple[str, list[Pixels]]]:
    """Each variant's pictures, in their order; a process for each core draws one variant."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(usable_cpus(), mp_context=spawn) as pool:
        jobs = [pool.submit(_pictures, bundles[v.precision], v, count) for v in chosen]
        for variant, job in zip(chosen, tqdm(jobs, unit="variant"), strict=True):
            yield variant.name, job.result()


def _pictures(bundle: Path, variant: Variant, count: int) -> list[Pixels]:
    """One variant's picture of each case, drawn by one core."""
    with FaceDiffuser.open(bundle, provider=variant.provider, threads=1) as face_diffuser:
        results = drawn(face_diffuser, cases(count), variant.options)
        return [np.asarray(result.images[0]) for result in results]


def _row(name: str, scores: PictureScores, full: PictureScores | None = None) -> QualityRow:
    """full: the full method's scores, where a gain over them is to be told case by case."""
    return QualityRow(
        row=name,
        pictures=len(scores.identity),
        identity=_mean(scores.identity),
        identity_95=_ends(scores.identity),
        identity_by_people=_by_people(scores.identity),
        scene=_mean(scores.scene),
        scene_95=_ends(scores.scene),
        pose=_mean(scores.pose),
        people=_mean(scores.people),
        prompt=_mean(scores.prompt),
        prompt_95=_ends(scores.prompt),
        prompt_by_people=_by_people(scores.prompt),
        identity_gain_95=None if full is None else _ends(scores.identity - full.identity),
        prompt_gain_95=None if full is None else _ends(scores.prompt - full.prompt),
    )


def _mean(values: Scores) -> float:
    return round(float(values.mean()), 3)


def _by_people(values: Scores) -> Ends:
    """Means of the cases with one person and of those with two, which come in turn."""
    return _mean(values[0::2]), _mean(values[1::2])


def _ends(values: Scores) -> Ends:
    low, high = interval(values)
    return round(low, 3), round(high, 3)


def _mean_difference(first: Sequence[Pixels], second: Sequence[Pixels] | None) -> float | None:
    """Mean absolute difference of pixels, as a share of their range."""
    if second is None:
        return None
    difference = np.abs(np.stack(first).astype(float) - np.stack(second))
    return round(float(difference.mean() / 255), 5)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    assert set(shares) == set(IDENTITY_ATTRIBUTES)
    return {name: round(share, 3) for name, share in shares.items()}


MEASURE = Measure(options=QualityOptions, measure=measured, text=table_of)
