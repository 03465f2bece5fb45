"""Identity preservation and prompt consistency of the shipped model, end to end (Tables 1, 3, 4).

Draws held-out people through the real runtime and lets probes, trained on the world's truth, say
who and what is to be seen. Writes docs/quality.md with its figures when it is not quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.quality_cases import STEPS, Case, Pixels, Variant, cases, drawn, variants
from benchmarks.quality_figures import draw_figures
from benchmarks.quality_page import DOCS, page
from benchmarks.quality_scores import (
    IDENTITY_ATTRIBUTES,
    Judge,
    PictureScores,
    chance_scores,
    interval,
)
from benchmarks.record import record
from engines.manifest import Precision
from examples.mini.training.probes import through_vae
from export.build import build_bundle
from export.checkpoints import SHIPPED_MODEL, Checkpoint
from export.component import BuildOptions
from runtime import FaceDiffuser

BUNDLES = Path(__file__).resolve().parent.parent / "build" / "quality"
PICTURES, QUICK_PICTURES = 200, 24


def measured(*, quick: bool) -> dict[str, Any]:
    """A record with a row per variant: means, 95 % intervals and the number of pictures."""
    listed = cases(QUICK_PICTURES if quick else PICTURES)
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
    with _opened_bundles(checkpoint) as opened, tqdm(total=len(chosen) * len(listed)) as bar:
        pictures = {}
        for variant in chosen:
            bar.set_description(variant.name)
            pictures[variant.name] = _pictures(opened[variant.precision], listed, variant, bar)
            rows.append(_row(variant.name, judge.scores(pictures[variant.name], listed)))
        facts["full_method_accuracy"] = _rounded(judge.accuracy(pictures["full method"], listed))
        facts["fp16_fp32_mean_difference"] = round(
            _mean_difference(pictures["full method"], pictures["fp32 bundle"]), 5
        )
        entry = record("quality", rows, gpu=None) | {"facts": facts}
        if not quick:
            draw_figures(rows, opened[Precision.FP16], listed, pictures, DOCS / "quality")
            (DOCS / "quality.md").write_text(page(entry), encoding="utf-8")
    return entry


@contextmanager
def _opened_bundles(checkpoint: Checkpoint) -> Iterator[dict[Precision, FaceDiffuser]]:
    """The shipped model as a bundle of each precision, open; what an earlier run built is kept."""
    with ExitStack() as stack:
        opened = {}
        for precision in Precision:
            bundle = BUNDLES / precision
            options = BuildOptions(precision=precision)
            build_bundle(bundle, checkpoint, options, tqdm.write, architectures=())
            opened[precision] = stack.enter_context(FaceDiffuser.open(bundle))
        yield opened


def _pictures(
    face_diffuser: FaceDiffuser, listed: list[Case], variant: Variant, bar: Any
) -> list[Pixels]:
    results = drawn(face_diffuser, listed, variant.options, bar.update)
    return [np.asarray(result.images[0]) for result in results]


def _row(name: str, scores: PictureScores) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "pictures": len(scores.identity)}
    for measure in ("identity", "scene", "pose", "people", "prompt"):
        values = getattr(scores, measure)
        row[measure] = round(float(values.mean()), 3)
        if measure in ("identity", "scene", "prompt"):
            row[f"{measure}_95"] = [round(end, 3) for end in interval(values)]
    return row


def _mean_difference(first: list[Pixels], second: list[Pixels]) -> float:
    """Mean absolute difference of pixels, as a share of their range."""
    difference = np.abs(np.stack(first).astype(float) - np.stack(second))
    return float(difference.mean() / 255)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    assert set(shares) == set(IDENTITY_ATTRIBUTES)
    return {name: round(share, 3) for name, share in shares.items()}
