"""A record of the Table 1 benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.quality import Ends
from benchmarks.schema.record import Record


@dataclass(frozen=True, kw_only=True)
class Table1Row:
    """Pictures of one person or of two.

    groups: whom they show, each a person or a pair. identity: mean over the pictures of the
    person's similarity who is least like their photo. prompt: CLIP's similarity of picture and
    prompt. _95: the ends of the mean's 95 % interval over groups; None of one group. without_face:
    share of pictures with fewer faces than people. paper_identity, paper_prompt: Face-Diffuser's in
    the paper's Table 1, of its own photographs, prompts and face networks.
    """

    row: str
    pictures: int
    groups: int
    identity: float
    identity_95: Ends | None = None
    prompt: float
    prompt_95: Ends | None = None
    without_face: float
    paper_identity: float
    paper_prompt: float


@dataclass(frozen=True, kw_only=True)
class Table1Facts:
    """detector, face_model, clip: what judged, with their licenses. bundle: the digest of its
    manifest. licenses: of the weights that drew."""

    detector: str
    face_model: str
    face_kind: str
    clip: str
    bundle: str
    licenses: tuple[str, ...]
    subjects: int
    provider: str
    preset: str
    guidance_rule: str


@dataclass(frozen=True, kw_only=True)
class Table1Record(Record):
    facts: Table1Facts
    rows: tuple[Table1Row, ...]
