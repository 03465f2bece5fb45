"""A picture's two numbers, and what many pictures' come to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.photographs.faces import Face, FaceModel, Pixels, Values, YuNet
from benchmarks.photographs.models import JudgeError

_RESAMPLES = 2000
# The surest faces of a picture, among which its people are looked for.
_MOST_FACES = 6


@dataclass(frozen=True, kw_only=True)
class TrialScore:
    """identity: of the person whose face is least like their photo's, 0.0 without a face. prompt:
    CLIP's. found: faces in the picture. group: whom it shows."""

    key: str
    group: str
    identity: float
    prompt: float
    found: int


class FaceJudge:
    """A detector and a face model."""

    def __init__(self, detector: YuNet, model: FaceModel) -> None:
        self._detector, self._model = detector, model

    def reference(self, photo: Pixels, name: str) -> Values:
        """The embedding of a photo's largest face. Raises JudgeError where there is none."""
        faces = self._detector.faces(photo)
        if not faces:
            raise JudgeError(f"{name}: the detector finds no face in this photo; take another")
        largest: Face = max(
            faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])
        )
        embedding: Values = self._model.embeddings(photo, [largest])[0]
        return embedding

    def identity(self, picture: Pixels, people: Sequence[Values]) -> tuple[float, int]:
        """The least of the people's similarities to the faces that are theirs; faces found."""
        faces = self._detector.faces(picture)[:_MOST_FACES]
        if not faces:
            return 0.0, 0
        likeness = np.stack(people) @ self._model.embeddings(picture, faces).T
        return min(assigned(likeness)), len(faces)


def assigned(likeness: Values) -> list[float]:
    """Of [people, faces], each person's similarity where each has a face of their own and all are
    alike in sum as much as can be; 0.0 for whom no face is left."""
    people, faces = likeness.shape
    padded = np.hstack([likeness, np.zeros((people, people))])
    orders = itertools.permutations(range(faces + people), people)
    rows = np.arange(people)
    best = max(orders, key=lambda order: padded[rows, list(order)].sum())
    return [float(value) for value in padded[rows, list(best)]]


def group_interval(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float] | None:
    """The mean's 95 % interval where whole groups are drawn again; None of one group alone.

    Pictures of the same people resemble each other: to take them for independent would make the
    interval too narrow.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        return None
    listed = np.asarray(values, np.float64)
    sums = np.array([listed[np.array(groups) == name].sum() for name in names])
    counts = np.array([groups.count(name) for name in names])
    picks = np.random.RandomState(0).randint(0, len(names), (_RESAMPLES, len(names)))
    low, high = np.percentile(sums[picks].sum(axis=1) / counts[picks].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)
