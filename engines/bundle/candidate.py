"""A bundle that is not published yet, and the check that its pictures are what they must be.

Every part of a bundle passes alone before this: here all of them draw together. Drawing is the
runtime's work, in a process of its own, as users run it: so its memory is given back, a crash is an
answer, and what draws is chosen by whoever runs the check (`Draw`), not by the packages below it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import MANIFEST_NAME, Manifest
from engines.bundle.plan_record import PLANS_FOLDER
from engines.contract import LATENT_PX
from engines.errors import BundleError
from engines.gate import Sides
from engines.guides import GuidanceRule
from engines.system.processes import Ended

PROMPT = "a man <|image|> and a woman <|image|> in a park"
# One step of each stage: TDM alone, both fused, SDM alone.
STEPS, START_MERGE_STEP, FINAL_STEP = 3, 0, 1
GUIDANCE_SCALE = 5.0
_SEED = 3407

Float32Array = npt.NDArray[np.float32]
# Runs the drawing command with these words, to its end.
Draw = Callable[..., Ended]


class CandidateError(BundleError):
    """Nothing can be drawn from a bundle that is about to be published."""


@contextlib.contextmanager
def candidate(
    bundle: Path, manifest: Manifest, plans: Mapping[str, Path] | None = None
) -> Iterator[Path]:
    """A folder that opens as the bundle would with this manifest; it is gone afterwards.

    plans: where the manifest's plans lie, by their paths inside the bundle.
    """
    folder = bundle / BUILD_FOLDER / "candidate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        tops = {Path(name).parts[0] for name in manifest.all_files()} - {PLANS_FOLDER}
        sources = {top: bundle / top for top in tops} | dict(plans or {})
        for name, source in sources.items():
            link = folder / name
            link.parent.mkdir(exist_ok=True)
            place(source.resolve(), link)
        (folder / MANIFEST_NAME).write_text(manifest.to_json())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(source: Path, target: Path) -> None:
    """Let a file or folder be seen at another place too: linked, or copied where nothing links."""
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, copy_function=linked)
        else:
            linked(source, target)


def linked(source: str | Path, target: str | Path) -> None:
    """A second name of a file, or a copy where the file system has no links."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """A short request with every stage in it; side_px: height and width of its picture."""

    latent_channels: int
    side_px: int
    guidance_rule: GuidanceRule

    def latents(self) -> Float32Array:
        """Initial noise, [1, latent_channels, h, w] float32."""
        side = self.side_px // LATENT_PX
        noise = np.random.RandomState(_SEED).standard_normal((1, self.latent_channels, side, side))
        return noise.astype(np.float32)

    def drawn(self, draw: Draw, folder: Path, *words: str) -> Float32Array:
        """Final latents, drawn from the bundle in a folder; raises CandidateError.

        words: further ones for the drawing command.
        """
        initial, final = folder / "initial.npy", folder / "final.npy"
        np.save(initial, self.latents())
        draw_from(
            draw, folder, references(folder), "--latents", initial, "--out", final,
            "--num-inference-steps", STEPS, "--guidance-scale", GUIDANCE_SCALE,
            "--start-merge-step", START_MERGE_STEP, "--final-step", FINAL_STEP,
            "--guidance-rule", self.guidance_rule, *words,
        )  # fmt: skip
        latents: Float32Array = np.load(final)
        return latents

    def drawn_sides(self, draw: Draw, folder: Path, *words: str) -> Sides:
        """Which model the fusion step took each pixel from, and why; raises CandidateError.

        words: further ones for the drawing command.
        """
        maps = folder / "maps.npz"
        self.drawn(draw, folder, "--fusion", "saliency", "--maps", str(maps), *words)
        with np.load(maps) as steps:
            # One step of fusion, of the one picture.
            return Sides(**{name: steps[name][0] for name in ("tdm", "sdm", "mask")})


def draw_from(draw: Draw, folder: Path, photos: Sequence[Path], *words: object) -> None:
    """Draw the check's prompt from the bundle in a folder; raises CandidateError.

    photos: of two people. words: further ones for the drawing command.
    """
    people = [word for photo in photos for word in ("--reference", photo)]
    ended = draw(PROMPT, "--bundle", folder, *people, *words)
    if ended.code != 0:
        raise CandidateError(ended.last_words or "no reason given")


def references(folder: Path) -> list[Path]:
    """Two pictures of smooth colors in place of photos, written into a folder."""
    from PIL import Image

    paths = []
    for seed in range(2):
        colors = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
        paths.append(folder / f"person{seed}.png")
        Image.fromarray(colors).resize((256, 256), Image.Resampling.BICUBIC).save(paths[-1])
    return paths
