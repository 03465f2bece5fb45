"""What a run has done so far: its pictures and their scores, found again by the next run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.photographs.faces import Pixels
from benchmarks.photographs.protocol import Trial
from benchmarks.photographs.scoring import TrialScore
from engines.bundle.files import atomic_path, sha256_of_file, write_atomic
from engines.bundle.records import document_of, read


class Work:
    """A folder of pictures, and of their scores by what judged them.

    drawn_by, judged_by: all that pictures, and that scores, depend on beside their trial.
    """

    def __init__(self, folder: Path, drawn_by: Any, judged_by: Any) -> None:
        self._drawn_by = drawn_by
        self._pictures = folder / "pictures"
        self._scores = folder / f"scores-{_digest([drawn_by, judged_by])}.jsonl"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._known = self._read()

    def key(self, trial: Trial) -> str:
        """Of a trial's picture: the photos count by what they hold, not by their names."""
        photos = [sha256_of_file(each.photo) for each in trial.subjects]
        return _digest([self._drawn_by, photos, trial.prompt, trial.seed])

    def picture(self, trial: Trial, make: Callable[[], Image.Image]) -> Pixels:
        """A trial's picture, drawn where no earlier run has."""
        path = self._pictures / f"{self.key(trial)}.png"
        if not path.is_file():
            with atomic_path(path) as partial:
                make().save(partial, format="PNG")
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def score(self, trial: Trial, judge: Callable[[], TrialScore]) -> TrialScore:
        """A trial's score, taken where no earlier run has."""
        key = self.key(trial)
        if key not in self._known:
            found = judge()
            with self._scores.open("a", encoding="utf-8") as file:
                file.write(json.dumps(document_of(found)) + "\n")
            self._known[key] = found
        return self._known[key]

    def _read(self) -> dict[str, TrialScore]:
        """A run that was ended while it wrote leaves half a line, which goes."""
        if not self._scores.is_file():
            return {}
        text = self._scores.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            write_atomic(self._scores, whole)
        listed = [read(TrialScore, json.loads(line)) for line in whole.splitlines()]
        return {each.key: each for each in listed}


def _digest(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, default=str).encode()).hexdigest()[:16]
