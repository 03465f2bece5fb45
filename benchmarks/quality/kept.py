"""Pictures that are kept once drawn, so that a run that was ended goes on."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.record import code_digest
from benchmarks.quality.cases import STEPS, Pixels, Variant, case_of, drawn
from benchmarks.quality.page import BUNDLES
from engines.bundle.files import atomic_path
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.bundle.quantization import Quantization
from engines.contract import Component
from export.build import draw
from export.bundle import build_bundle
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from export.options import BuildOptions
from runtime import FaceDiffuser, Request
from runtime.pictures.files import settings

# Of a part that is kept as a whole.
PART_PICTURES = 20
# The world's own pictures that a Fréchet distance is taken from: of other people than the cases'.
WORLD_PICTURES, QUICK_WORLD_PICTURES = 600, 80
_FIRST_WORLD_SEED = 100_000


@cache
def built_bundle(precision: Precision = Precision.FP16, *, in_8_bits: bool = False) -> Path:
    """The shipped model, with all its 8-bit U-Nets or none; what an earlier run built is kept."""
    bundle = BUNDLES / ("8-bit" if in_8_bits else precision)
    build_bundle(
        bundle, Checkpoint.open(SHIPPED_MODEL), BuildOptions(precision=precision), tqdm.write, (),
        draw=draw, quantizations=tuple(Quantization) if in_8_bits else (),
    )  # fmt: skip
    return bundle


def kept_pictures(bundle: Path, variant: Variant, count: int) -> tuple[list[Pixels], int]:
    """One variant's picture of each of so many cases; U-Net evaluations of each.

    What an earlier run drew from the same graphs with the same options is taken from there.
    """
    pictures: list[Pixels] = []
    evaluations = 0
    for start in range(0, count, PART_PICTURES):
        path = kept_path(Bundle.open(bundle), variant, start)
        missing = min(PART_PICTURES, count - start)
        if path.is_file() and len((found := np.load(path))["pictures"]) >= missing:
            part, evaluations = list(found["pictures"][:missing]), int(found["evaluations"])
        else:
            part, evaluations = drawn_by_one_core(bundle, variant, range(start, start + missing))
            _keep(path, pictures=np.stack(part), evaluations=np.array(evaluations))
        pictures += part
    return pictures, evaluations


def drawn_by_one_core(bundle: Path, variant: Variant, seeds: range) -> tuple[list[Pixels], int]:
    """One variant's picture of each of these cases, and the U-Net evaluations of each picture."""
    with FaceDiffuser.open(
        bundle,
        provider=variant.provider,
        precision=variant.computed_in,
        threads=1,
        quantization=variant.quantization,
    ) as face_diffuser:
        listed = [case_of(seed, variant.photos) for seed in seeds]
        results = list(drawn(face_diffuser, listed, variant.options))
    return [np.asarray(result.images[0]) for result in results], results[0].evaluations


def kept_path(bundle: Bundle, variant: Variant, start: int) -> Path:
    """Where a part of a variant's pictures is kept: named by all that they are drawn from, the code
    included."""
    options = {"num_inference_steps": STEPS, **variant.options}
    resolved = settings(Request(prompt="", references=(), **options))
    opened = bundle.quantized(variant.quantization)
    graphs = [opened.component(each).onnx_digest() for each in Component]
    code = code_digest("runtime", "engines", "mini", "benchmarks/quality")
    drawn_from = [code, graphs, str(variant.provider), str(variant.computed_in), variant.photos]
    key = json.dumps([*drawn_from, resolved, start], default=str)
    return BUNDLES / "pictures" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def world_pictures(*, quick: bool) -> list[Pixels]:
    """The world's own, of held-out people in settings that are no cases; kept once drawn."""
    count = QUICK_WORLD_PICTURES if quick else WORLD_PICTURES
    code = code_digest("mini", "benchmarks/quality")
    path = BUNDLES / "pictures" / f"world-{count}-{code[:16]}.npz"
    if not path.is_file():
        seeds = range(_FIRST_WORLD_SEED, _FIRST_WORLD_SEED + count)
        drawn = [case_of(seed).truth() for seed in tqdm(seeds, desc="drawing the world")]
        _keep(path, pictures=np.stack(drawn))
    return list(np.load(path)["pictures"])


def _keep(path: Path, **arrays: Any) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
