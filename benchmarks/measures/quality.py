"""Identity preservation and prompt consistency of the shipped model, end to end (Tables 1, 3, 4).

Draws held-out people through the real runtime and lets probes, trained on the world's truth, say
who and what is to be seen. Writes docs/quality.md with its figures when it is not quick.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.machine import usable_cpus
from benchmarks.harness.record import record
from benchmarks.quality.cases import STEPS, Pixels, Variant, cases, drawn, variants
from benchmarks.quality.figures import draw_figures
from benchmarks.quality.page import DOCS, page
from benchmarks.quality.scores import (
    IDENTITY_ATTRIBUTES,
    Judge,
    PictureScores,
    Scores,
    chance_scores,
    interval,
)
from engines.bundle.manifest import Precision
from export.build import draw
from export.bundle import build_bundle
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from export.options import BuildOptions
from mini.training.probes import through_vae
from runtime import FaceDiffuser

BUNDLES = Path(__file__).resolve().parents[2] / "build" / "quality"
PICTURES, QUICK_PICTURES = 200, 24
# The measures that are set beside the paper's.
COMPARED = ("identity", "prompt")
# Facts that are mean differences of pixels from the full method's, and which variant's.
DIFFERENCES = {
    "fp16_fp32_mean_difference": "fp32 bundle",
    "bfloat16_mean_difference": "OpenVINO, bfloat16",
}


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--pictures",
        type=_pictures_of_a_row,
        help=f"of each row, at least 2 (default: {PICTURES}, quick {QUICK_PICTURES})",
    )


def _pictures_of_a_row(word: str) -> int:
    if not word.isdecimal() or int(word) < 2:
        raise argparse.ArgumentTypeError(
            f"{word}: expected at least 2, one of one person and one of two; type: --pictures 24"
        )
    return int(word)


def measured(*, quick: bool, pictures: int | None) -> dict[str, Any]:
    """A record with a row per variant: means, 95 % intervals and the number of pictures."""
    listed = cases(pictures or (QUICK_PICTURES if quick else PICTURES))
    chosen = [variant for variant in variants() if variant.quick or not quick]
    judge = Judge()
    checkpoint = Checkpoint.open(SHIPPED_MODEL)
    truth = [case.truth() for case in listed]
    rows = [_row("the world's own pictures", judge.scores(truth, listed))]
    through = list(through_vae(checkpoint.vae_decoder(), np.stack(truth)))
    rows.append(_row("the same through the VAE", judge.scores(through, listed)))
    facts: dict[str, Any] = {
        "steps": STEPS,
        "chance": {name: round(share, 3) for name, share in chance_scores(listed).items()},
        "probe_accuracy": _rounded(judge.accuracy(truth, listed)),
        "probe_accuracy_through_vae": _rounded(judge.accuracy(through, listed)),
    }
    found_of: dict[str, list[Pixels]] = {}
    full_scores: PictureScores | None = None  # of the first row that is drawn
    for name, found in _drawn_in_parallel(_built_bundles(checkpoint, chosen), chosen, len(listed)):
        found_of[name], scores = found, judge.scores(found, listed)
        full_scores = full_scores or scores
        rows.append(_row(name, scores) | _gains(scores, full_scores))
    full = found_of["full method"]
    facts["full_method_accuracy"] = _rounded(judge.accuracy(full, listed))
    for fact, other in DIFFERENCES.items():
        if other in found_of:
            facts[fact] = round(_mean_difference(full, found_of[other]), 5)
    entry = record("quality", rows, gpu=None) | {"facts": facts}
    if not quick:
        with FaceDiffuser.open(BUNDLES / Precision.FP16) as face_diffuser:
            draw_figures(rows, face_diffuser, listed, found_of, DOCS / "quality")
        (DOCS / "quality.md").write_text(page(entry), encoding="utf-8")
    return entry


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


def _row(name: str, scores: PictureScores) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "pictures": len(scores.identity)}
    for measure in ("identity", "scene", "pose", "people", "prompt"):
        values = getattr(scores, measure)
        row[measure] = round(float(values.mean()), 3)
        if measure in ("identity", "scene", "prompt"):
            row[f"{measure}_95"] = _ends(values)
        if measure in COMPARED:  # cases have one and two people in turn
            row[f"{measure}_by_people"] = [
                round(float(values[people::2].mean()), 3) for people in range(2)
            ]
    return row


def _gains(scores: PictureScores, full: PictureScores) -> dict[str, list[float]]:
    """95 % intervals of what is gained over the full method, case by case."""
    return {
        f"{measure}_gain_95": _ends(getattr(scores, measure) - getattr(full, measure))
        for measure in COMPARED
    }


def _ends(values: Scores) -> list[float]:
    return [round(end, 3) for end in interval(values)]


def _mean_difference(first: list[Pixels], second: list[Pixels]) -> float:
    """Mean absolute difference of pixels, as a share of their range."""
    difference = np.abs(np.stack(first).astype(float) - np.stack(second))
    return float(difference.mean() / 255)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    assert set(shares) == set(IDENTITY_ATTRIBUTES)
    return {name: round(share, 3) for name, share in shares.items()}
