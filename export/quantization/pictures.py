"""What is drawn to calibrate and to compare: prompts, photos, seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.files import sha256_of_file
from export import shipped
from export.checkpoint.checkpoint import CheckpointError
from export.checks.torch_pipeline import MARKER
from export.quantization.calls import Picture, check_photo

# One and two people, indoors and out: what the scales must cover is the strength of each input.
PROMPTS = (
    f"a man {MARKER} and a woman {MARKER} in a park",
    f"a woman {MARKER} in a forest",
    f"a man {MARKER} in the snow",
    f"a woman {MARKER} and a man {MARKER} at the beach",
    f"a man {MARKER} reading in a city at night",
    f"a woman {MARKER} and a woman {MARKER} in a kitchen",
)
_HELD_OUT_PROMPT = f"a woman {MARKER} and a man {MARKER} in a garden in the evening"
_SEED, _HELD_OUT_SEED = 1_000, 2_000


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What scales are taken from.

    photos: of people, without whom SDM's cross-attention would be measured too small. prompts: with
    a marker for each person. steps: of each trajectory. binding: whether a U-Net that drifts beyond
    its bounds falls back to half precision; of random weights, an error says nothing.
    """

    photos: tuple[Path, ...] = ()
    prompts: tuple[str, ...] = PROMPTS
    steps: int = 20
    binding: bool = True

    def pictures(self) -> list[Picture]:
        """One for each prompt, with the photos in turns."""
        photos = _in_turns(self._photos())
        return [
            Picture(
                prompt=prompt,
                photos=tuple(next(photos) for _ in range(prompt.count(MARKER))),
                seed=_SEED + number,
            )
            for number, prompt in enumerate(self.prompts)
        ]

    def held_out(self) -> Picture:
        """What the scales are judged by: another prompt, other noise, other photos where the
        calibration's own were given."""
        return Picture(
            prompt=_HELD_OUT_PROMPT, photos=(shipped.HER, shipped.HIM), seed=_HELD_OUT_SEED
        )

    def digest(self) -> str:
        """Of all that the scales depend on beside the model."""
        facts = [
            self.steps,
            self.binding,
            [(each.prompt, each.seed) for each in self.pictures()],
            [sha256_of_file(photo) for photo in self._photos()],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _photos(self) -> tuple[Path, ...]:
        return self.photos or tuple(sorted(shipped.CALIBRATION.glob("*.png")))


def _in_turns(photos: Sequence[Path]) -> Iterator[Path]:
    while True:
        yield from photos


def calibration_of(photos: Sequence[Path], prompts: Path | None, *, full_size: bool) -> Calibration:
    """What the flags of export.build say. full_size: random weights of Stable Diffusion 1.5's size,
    whose calls take seconds each and whose scales mean nothing.

    Raises CheckpointError for a file of prompts that is none, or without a person in a prompt.
    """
    lines: tuple[str, ...] = PROMPTS
    if prompts is not None:
        try:
            text = prompts.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{prompts} is no file of prompts: {error}") from error
        lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        bare = next((line for line in lines if MARKER not in line), None)
        if bare is not None or not lines:
            raise CheckpointError(
                f"{prompts} must have a prompt on each line with {MARKER} after the word for each "
                f"person, got {bare!r:.80}"
            )
    for photo in photos:
        check_photo(photo)
    if full_size:
        return Calibration(photos=tuple(photos), prompts=lines[:1], steps=2, binding=False)
    return Calibration(photos=tuple(photos), prompts=lines)
