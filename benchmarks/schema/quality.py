"""A record of the quality benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.schema.record import Record

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SeenColumns:
    """What the trained critics tell of a row's pictures; None in records older than they are.

    perceptual: distance from the pictures of the same noise in 50 steps; None where these were not
    drawn. sharpness: energy of edges over that of the world's own pictures, the geometric mean.
    likeness: to the photos, the mean over the people of a picture; least_likeness: of the person
    least like theirs; verified: share of pictures in which everybody counts as the photo's person.
    frechet: from the world's own pictures; _error: its standard deviation.
    """

    perceptual: float | None = None
    sharpness: float | None = None
    likeness: float | None = None
    least_likeness: float | None = None
    least_likeness_95: Ends | None = None
    verified: float | None = None
    frechet: float | None = None
    frechet_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityRow(SeenColumns):
    """One variant's means over its pictures.

    _95: the ends of the mean's 95 % interval. _by_people: of the pictures with one person and with
    two; the first records did not tell them apart. _gain, _gain_95: of the difference from the full
    method, None for what is not drawn by the model. pixel_difference: mean absolute difference from
    its pictures, as a share of the range; _p95: of single pictures, the 95th percentile.
    """

    row: str
    pictures: int
    identity: float
    identity_95: Ends
    identity_by_people: Ends | None = None
    scene: float
    scene_95: Ends
    pose: float
    people: float
    prompt: float
    prompt_95: Ends
    prompt_by_people: Ends | None = None
    identity_gain: float | None = None
    identity_gain_95: Ends | None = None
    prompt_gain_95: Ends | None = None
    pixel_difference: float | None = None
    pixel_difference_p95: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What another person in another scene scores."""

    identity: float
    scene: float


@dataclass(frozen=True, kw_only=True)
class QualityFacts:
    """*_accuracy: by attribute, the share of people of whom the probe tells it rightly.

    *_mean_difference: of pixels from the full method's, None where that variant was not drawn.
    """

    steps: int
    chance: Chance
    probe_accuracy: Mapping[str, float]
    probe_accuracy_through_vae: Mapping[str, float]
    full_method_accuracy: Mapping[str, float]
    fp16_fp32_mean_difference: float | None = None
    bfloat16_mean_difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityRecord(Record):
    facts: QualityFacts
    rows: tuple[QualityRow, ...]


@dataclass(frozen=True, kw_only=True)
class CurveRow(SeenColumns):
    """What one way to draw costs, and how its pictures compare with the quality preset's.

    evaluations: passes through a U-Net a picture. _95: the ends of the 95 % interval. *_gain: mean
    of the differences from that preset's pictures, case by case; None for itself.
    pixel_difference: mean absolute difference from them, as a share of the range.
    structure_difference: 1 - SSIM.
    """

    row: str
    pictures: int
    evaluations: int
    identity: float
    identity_95: Ends
    identity_gain: float | None = None
    identity_gain_95: Ends | None = None
    scene: float
    scene_95: Ends
    prompt: float
    pixel_difference: float
    structure_difference: float


@dataclass(frozen=True, kw_only=True)
class CurveFacts:
    """A picture's wall clock by preset, in turns.

    picture_ms: medians over the rounds. speedup: the median over the rounds of the quality
    preset's time by this one's.
    """

    provider: str
    threads: int
    rounds: int
    picture_ms: Mapping[str, float]
    speedup: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CurveRecord(Record):
    facts: CurveFacts
    rows: tuple[CurveRow, ...]


class Measure(StrEnum):
    """What is told of pictures, in the order of the tables.

    PIXELS, PERCEPTUAL: distances from the picture of the same noise in 50 steps. SHARPNESS: the
    binary logarithm of the energy of edges over that of the world's own picture. LIKENESS: to the
    photo, of the person least like theirs. FRECHET: of the set, from the world's own pictures.
    IDENTITY, SCENE, PROMPT: what the probes tell.
    """

    PIXELS = "pixels"
    PERCEPTUAL = "perceptual"
    SHARPNESS = "sharpness"
    LIKENESS = "likeness"
    FRECHET = "frechet"
    IDENTITY = "identity"
    SCENE = "scene"
    PROMPT = "prompt"


@dataclass(frozen=True, kw_only=True)
class NoticedRow:
    """What one measure says of one corruption.

    base: its mean over the pictures as they are. shift: by how much the corrupted ones' is greater,
    with the ends of its 95 % interval; None of a measure of the whole set. p: of a permutation test
    of pairs, two-sided.
    """

    corruption: str
    measure: Measure
    base: float
    shift: float
    shift_95: Ends | None = None
    p: float


@dataclass(frozen=True, kw_only=True)
class NoticedFacts:
    """frechet: of the pictures as they are, from so many of the world's own; _error: its standard
    deviation. frechet_world: of the world's own pictures of the cases, which is what no model can
    be below. equal_error_rate: of the likeness's verifier, on people it never saw.
    """

    pictures: int
    world_pictures: int
    frechet: float
    frechet_error: float
    frechet_world: float
    equal_error_rate: float


@dataclass(frozen=True, kw_only=True)
class NoticedRecord(Record):
    facts: NoticedFacts
    rows: tuple[NoticedRow, ...]
