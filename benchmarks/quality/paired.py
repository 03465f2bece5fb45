"""Cost against quality of the presets and of what else was tried, on the shipped model.

Draws the same held-out people with each, pairs the pictures with the quality preset's, and times
the presets in turns. Writes its section of docs/quality.md when it is not quick.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from benchmarks.harness.machine import usable_cpus
from benchmarks.harness.options import Options, flag
from benchmarks.harness.record import header_of
from benchmarks.harness.timing import elapsed_ms, interleaved_ms
from benchmarks.harness.workload import SEED, Workload
from benchmarks.quality.cases import Case, Pixels, Variant, cases, drawn
from benchmarks.quality.curve import (
    REFERENCE,
    curve_variants,
    draw_curve,
    structure_difference,
    with_curve,
)
from benchmarks.quality.page import BUNDLES, DOCS
from benchmarks.quality.scores import Judge, PictureScores, Scores, interval
from benchmarks.schema.quality import CurveFacts, CurveRecord, CurveRow, Ends
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.bundle.records import Count
from engines.contract import Component
from engines.engine import Provider
from export.build import draw
from export.bundle import build_bundle
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from export.options import BuildOptions
from runtime import FaceDiffuser, Preset, Request
from runtime.pictures.files import settings


@dataclass(frozen=True, kw_only=True)
class CurveOptions(Options):
    """What of the quality benchmark's options the curve follows."""

    pictures: int
    rows: tuple[str, ...] = field(
        default=(),
        metadata=flag("of the curve, beside the presets (default: all)", metavar="NAME"),
    )
    rounds: Count = field(
        default=9, metadata=flag("in which the curve times the presets in turns", quick=2)
    )


def measured_curve(options: CurveOptions) -> CurveRecord:
    """A row per variant, the quality preset first."""
    listed = cases(options.pictures)
    chosen = [
        each
        for each in curve_variants()
        if each.quick or (each.name in options.rows if options.rows else not options.quick)
    ]
    bundle = BUNDLES / Precision.FP16
    build_bundle(bundle, Checkpoint.open(SHIPPED_MODEL), BuildOptions(), tqdm.write, (), draw=draw)
    facts = _timed(bundle, options.rounds)
    judge = Judge()
    rows: list[CurveRow] = []
    reference: tuple[list[Pixels], PictureScores] | None = None
    for name, (pictures, evaluations) in _drawn(bundle, chosen, len(listed)):
        scores = judge.scores(pictures, listed)
        reference = reference or (pictures, scores)
        rows.append(_row(name, pictures, evaluations, scores, reference))
    record = CurveRecord(
        header=header_of("curve", options, gpu=None, seeds=[SEED]), facts=facts, rows=tuple(rows)
    )
    if not options.quick:
        draw_curve(rows, DOCS / "quality" / "curve.png")
        page = DOCS / "quality.md"
        page.write_text(with_curve(page.read_text(encoding="utf-8"), record), encoding="utf-8")
    return record


def _timed(bundle: Path, rounds: int) -> CurveFacts:
    """The presets in turns, after one picture of each that does not count."""
    provider, threads = Provider.ONNXRUNTIME_CPU, usable_cpus()
    with FaceDiffuser.open(bundle, provider=provider, threads=threads) as opened:
        requests = {
            str(each): Workload().request(preset=each, num_inference_steps=None) for each in Preset
        }
        for request in requests.values():
            opened.generate(request)
        runs = {
            name: partial(elapsed_ms, partial(opened.generate, request))
            for name, request in requests.items()
        }
        spent = interleaved_ms(runs, rounds=rounds)
    quality = spent[REFERENCE]
    return CurveFacts(
        provider=str(provider),
        threads=threads,
        rounds=rounds,
        picture_ms={name: round(median(each), 1) for name, each in spent.items()},
        speedup={
            name: round(median(a / b for a, b in zip(quality, each, strict=True)), 3)
            for name, each in spent.items()
        },
    )


def _drawn(
    bundle: Path, chosen: list[Variant], count: int
) -> Iterator[tuple[str, tuple[list[Pixels], int]]]:
    """Each variant's pictures and evaluations; a process for each core draws one variant."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(usable_cpus(), mp_context=spawn) as pool:
        jobs = [pool.submit(_pictures, bundle, variant, count) for variant in chosen]
        for variant, job in zip(chosen, tqdm(jobs, unit="variant"), strict=True):
            yield variant.name, job.result()


def _pictures(bundle: Path, variant: Variant, count: int) -> tuple[list[Pixels], int]:
    """One variant's picture of each case, drawn by one core; U-Net evaluations of each.

    What an earlier run drew from the same graphs with the same options is kept.
    """
    kept = kept_path(Bundle.open(bundle), variant, count)
    if not kept.is_file():
        pictures, evaluations = _drawn_by_one(bundle, variant, count)
        kept.parent.mkdir(exist_ok=True)
        np.savez_compressed(kept, pictures=np.stack(pictures), evaluations=evaluations)
    found = np.load(kept)
    return list(found["pictures"]), int(found["evaluations"])


def kept_path(bundle: Bundle, variant: Variant, count: int) -> Path:
    """Where a variant's pictures are kept: named by all that they are drawn from but the code."""
    resolved = settings(Request(prompt="", references=(), **variant.options))
    graphs = [bundle.component(each).onnx_digest() for each in Component]
    key = json.dumps([graphs, str(variant.provider), resolved, count], default=str)
    return BUNDLES / "curve" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _drawn_by_one(bundle: Path, variant: Variant, count: int) -> tuple[list[Pixels], int]:
    listed: list[Case] = cases(count)
    with FaceDiffuser.open(bundle, provider=variant.provider, threads=1) as face_diffuser:
        results = list(drawn(face_diffuser, listed, variant.options))
    return [np.asarray(result.images[0]) for result in results], results[0].evaluations


def _row(
    name: str,
    pictures: list[Pixels],
    evaluations: int,
    scores: PictureScores,
    reference: tuple[list[Pixels], PictureScores],
) -> CurveRow:
    of_reference, reference_scores = reference
    difference = np.abs(np.stack(pictures).astype(float) - np.stack(of_reference)).mean() / 255
    gain = None if scores is reference_scores else scores.identity - reference_scores.identity
    return CurveRow(
        row=name,
        pictures=len(pictures),
        evaluations=evaluations,
        identity=_mean(scores.identity),
        identity_95=_ends(scores.identity),
        identity_gain=None if gain is None else _mean(gain),
        identity_gain_95=None if gain is None else _ends(gain),
        scene=_mean(scores.scene),
        scene_95=_ends(scores.scene),
        prompt=_mean(scores.prompt),
        pixel_difference=round(float(difference), 5),
        structure_difference=round(structure_difference(pictures, of_reference), 5),
    )


def _mean(values: Scores) -> float:
    return round(float(values.mean()), 4)


def _ends(values: Scores) -> Ends:
    low, high = interval(values)
    return round(low, 4), round(high, 4)
