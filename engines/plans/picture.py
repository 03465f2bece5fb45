"""The last check of new plans: the runtime draws the same with them as on the CPU."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines import commands
from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import MANIFEST_NAME, Manifest
from engines.bundle.plan_record import PlanRecord
from engines.contract import LATENT_PX, Component
from engines.errors import PlanBuildError, PlanRefusedError
from engines.gate import PLAN_PIPELINE_BOUNDS, relative_l2
from engines.plans.store import plan_file

PROMPT = "a man <|image|> and a woman <|image|> in a park"
# One step of each stage: TDM alone, both fused, SDM alone.
_STEPS, _START_MERGE_STEP, _FINAL_STEP = 3, 0, 1
_PROVIDERS = ("tensorrt", "onnxruntime-cpu")
_SEED = 3407


def compare_pictures(bundle: Path, manifest: Manifest, records: list[PlanRecord]) -> float | None:
    """Draw final latents with new plans and on the CPU; returns their relative L2 distance.

    Returns None, having compared nothing, where a component has no plan yet. Raises
    PlanRefusedError if the pictures differ, PlanBuildError if one cannot be drawn.
    """
    if {record.component for record in records} != set(Component):
        return None
    with _candidate(bundle, manifest, records) as folder:
        references = [_reference(folder / f"person{index}.png", index) for index in range(2)]
        latents = folder / "initial.npy"
        np.save(latents, _noise(manifest))
        found, expected = (
            _final_latents(folder, backend, latents, references) for backend in _PROVIDERS
        )
    if not np.isfinite(found).all():
        raise PlanRefusedError("the runtime draws NaN or infinity with these plans; not published")
    error = relative_l2(found, expected)
    bound = PLAN_PIPELINE_BOUNDS[manifest.precision]
    if not error <= bound:
        raise PlanRefusedError(
            f"with these plans the runtime draws latents {error:.2e} from the CPU's (relative L2), "
            f"the bound is {bound:.0e}; the plans are not published; every plan passed alone, so "
            "report this with the build logs"
        )
    return error


@contextlib.contextmanager
def _candidate(bundle: Path, manifest: Manifest, records: list[PlanRecord]) -> Iterator[Path]:
    """A folder that opens as the bundle would with these plans published."""
    folder = bundle / BUILD_FOLDER / "plan_candidate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for name in manifest.all_files():
            top = name.split("/")[0]
            if name not in manifest.plan_files() and not (folder / top).is_symlink():
                (folder / top).symlink_to((bundle / top).resolve())
        for record in records:
            source = plan_file(bundle, record)
            if source is None:
                raise PlanBuildError(f"{record.name} vanished while plans were built; build again")
            link = folder / record.path
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(source.resolve())
        candidate = replace(manifest, plans=records, timing_cache={})
        (folder / MANIFEST_NAME).write_text(candidate.to_json())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _noise(manifest: Manifest) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Initial noise of one picture at the native size, which every profile takes."""
    size = manifest.dimensions
    side = size.native_px // LATENT_PX
    random = np.random.RandomState(_SEED)
    return random.standard_normal((1, size.latent_channels, side, side)).astype(np.float32)


def _reference(path: Path, seed: int) -> Path:
    """A picture of smooth colors in place of a photo: any person serves to compare backends."""
    from PIL import Image

    colors = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(colors).resize((256, 256), Image.Resampling.BICUBIC).save(path)
    return path


def _final_latents(
    folder: Path, backend: str, latents: Path, references: list[Path]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Draw through `python -m runtime` in a process of its own: engines never import runtime."""
    out = folder / f"{backend}.npy"
    module = commands.PREFIX + commands.DRAW
    command = [sys.executable, "-m", module, PROMPT, "--bundle", str(folder)]
    for reference in references:
        command += ["--reference", str(reference)]
    command += ["--provider", backend, "--latents", str(latents), "--out", str(out)]
    command += ["--num-inference-steps", str(_STEPS), "--guidance-scale", "5"]
    command += ["--start-merge-step", str(_START_MERGE_STEP), "--final-step", str(_FINAL_STEP)]
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if finished.returncode:
        reason = finished.stderr.strip().splitlines() or ["no reason given"]
        raise PlanBuildError(f"the runtime cannot draw on {backend} with these plans: {reason[-1]}")
    drawn: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.load(out)
    return drawn
