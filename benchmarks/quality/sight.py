"""What the trained critics see of drawn pictures, one number a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.analysis.significance import Values
from benchmarks.quality.cases import Case, Pixels
from benchmarks.quality.frechet import Reference
from benchmarks.quality.scores import ends, mean
from benchmarks.schema.quality import SeenColumns
from mini.critics import (
    critics_record,
    embeddings,
    likenesses,
    open_perception,
    open_verifier,
    perceptual_distances,
    photo_view,
    summaries,
)

# Perceptual distances differ in the fourth.
_DIGITS = 5
_RGB_TO_GRAY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One number per picture, and its features.

    sharpness: energy of edges, as a share of that of the world's own picture of the case.
    likeness: to the photos, the mean over people, from -1 to 1. least: of the person that is least
    like theirs. verified: 1.0 where everybody counts as the photo's person. features [n, width]:
    for a Fréchet distance.
    """

    sharpness: Values
    likeness: Values
    least: Values
    verified: Values
    features: Values


class Sight:
    """The trained critics, and what they know of the cases.

    listed: with the photos of people as they are, whatever the model is shown. truth: the world's
    own pictures of the cases; world: of others, which a Fréchet distance is taken from.
    """

    def __init__(
        self, listed: Sequence[Case], truth: Sequence[Pixels], world: Sequence[Pixels]
    ) -> None:
        self._perception, self._verifier = open_perception(), open_verifier()
        self._threshold = critics_record().through_vae.threshold
        self._photos = [
            list(embeddings(self._verifier, [photo_view(each) for each in case.photos]))
            for case in listed
        ]
        self._edges = edge_energies(np.stack(truth))
        self.reference = Reference(self.features(np.stack(world)))

    def seen(self, pictures: Sequence[Pixels]) -> Seen:
        """Of a picture for each case."""
        stacked = np.stack(pictures)
        likeness = [
            likenesses(self._verifier, picture, photos)
            for picture, photos in zip(pictures, self._photos, strict=True)
        ]
        least: Values = np.array([each.min() for each in likeness])
        verified: Values = (least >= self._threshold).astype(np.float64)
        return Seen(
            sharpness=edge_energies(stacked) / self._edges,
            likeness=np.array([each.mean() for each in likeness]),
            least=least,
            verified=verified,
            features=self.features(stacked),
        )

    def columns(
        self, pictures: Sequence[Pixels], full: Sequence[Pixels] | None = None
    ) -> SeenColumns:
        """What a row tells of its pictures; full: what their distance is taken from."""
        seen = self.seen(pictures)
        return SeenColumns(
            perceptual=None if full is None else mean(self.perceptual(pictures, full), _DIGITS),
            sharpness=round(float(np.exp(np.log(seen.sharpness).mean())), 3),
            likeness=mean(seen.likeness),
            least_likeness=mean(seen.least),
            least_likeness_95=ends(seen.least),
            verified=mean(seen.verified),
            frechet=round(self.reference.distance(seen.features), 2),
            frechet_error=round(self.reference.error(seen.features), 2),
        )

    def features(self, pictures: Pixels) -> Values:
        """What pictures [n, h, w, 3] show [n, width]."""
        return summaries(self._perception, pictures)

    def perceptual(self, first: Sequence[Pixels], second: Sequence[Pixels]) -> Values:
        """How far apart pictures look, one by one [n]."""
        return perceptual_distances(self._perception, np.stack(first), np.stack(second))


def pixel_distances(first: Sequence[Pixels], second: Sequence[Pixels]) -> Values:
    """Mean absolute difference as a share of the range, one by one [n]."""
    difference = np.abs(np.stack(first).astype(np.float64) - np.stack(second)) / 255
    found: Values = difference.mean(axis=(1, 2, 3))
    return found


def in_gray(pictures: Pixels) -> Values:
    """The luma of pictures [n, h, w, 3] (ITU-R BT.601), in [0, 1]."""
    gray: Values = pictures @ _RGB_TO_GRAY / 255
    return gray


def edge_energies(pictures: Pixels) -> Values:
    """Mean square of the Laplacian of gray pictures [n, h, w, 3] in [0, 1], one by one [n]."""
    gray = in_gray(pictures)
    inner = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    found: Values = np.square(around - 4 * inner).mean(axis=(1, 2))
    return found
