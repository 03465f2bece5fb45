"""What Table 1 draws: each subject alone and in pairs, by each prompt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import FaceDiffuserError

MARKER = "<|image|>"
# By what a photo's name starts with, how a prompt speaks of its person.
NOUNS = ("man", "woman", "boy", "girl", "person")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# This toolkit's own: the paper's list of prompts was not published with its code. Of each kind that
# such lists have: places, clothes and accessories, actions, styles.
SINGLE_PROMPTS = (
    "{person} in the jungle",
    "{person} in front of the Eiffel Tower",
    "{person} on a snowy mountain",
    "{person} wearing a red hat",
    "{person} wearing a spacesuit",
    "{person} in a chef's uniform, in a kitchen",
    "{person} riding a horse",
    "{person} reading a book in a library",
    "{person} playing the guitar on a stage",
    "a watercolor painting of {person} in a garden",
    "a pencil drawing of {person}",
    "{person} walking a dog on the beach at sunset",
)
MULTI_PROMPTS = (
    "{first} and {second} in the jungle",
    "{first} and {second} in front of the Eiffel Tower",
    "{first} and {second} on a snowy mountain",
    "{first} and {second} cooking together in a kitchen",
    "{first} and {second} reading books in a library",
    "{first} and {second} sitting at a table in a cafe",
    "{first} and {second} riding bicycles in a park",
    "{first} and {second} singing on a stage",
    "a watercolor painting of {first} and {second} in a garden",
    "{first} and {second} walking on the beach at sunset",
)


class ProtocolError(FaceDiffuserError):
    """The photos or the prompts are not what the protocol takes; says what it takes."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A person: their name, how prompts speak of them, and their photo."""

    name: str
    noun: str
    photo: Path

    @property
    def words(self) -> str:
        """Of a prompt: "a woman <|image|>"."""
        return f"a {self.noun} {MARKER}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One picture: whom it shows, by which prompt, from which noise."""

    subjects: tuple[Subject, ...]
    prompt: str
    seed: int

    @property
    def group(self) -> str:
        """Whom it shows; pictures of one group are not independent of each other."""
        return " + ".join(each.name for each in self.subjects)

    @property
    def plain_prompt(self) -> str:
        """What the picture's caption is held against: without the markers."""
        return self.prompt.replace(f" {MARKER}", "")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Templates with {person}, and with {first} and {second}."""

    single: tuple[str, ...] = SINGLE_PROMPTS
    multi: tuple[str, ...] = MULTI_PROMPTS

    @classmethod
    def read(cls, path: Path) -> Prompts:
        """One template a line. Raises ProtocolError."""
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        single = tuple(line for line in lines if line.count("{person}") == 1)
        multi = tuple(line for line in lines if "{first}" in line and "{second}" in line)
        wrong = [line for line in lines if line not in (*single, *multi)]
        if wrong or not lines:
            raise ProtocolError(
                f"{path}: expected lines with {{person}}, or with {{first}} and {{second}}, "
                f"got {wrong[0] if wrong else 'none'!r}"
            )
        return cls(single=single, multi=multi)


def subjects_of(folder: Path) -> list[Subject]:
    """Of each photo a person, by name. Raises ProtocolError."""
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    found = []
    for photo in photos:
        noun, _, _ = photo.stem.replace("-", "_").partition("_")
        if noun not in NOUNS:
            raise ProtocolError(
                f"{photo}: a photo's name starts with what prompts call its person, one of "
                f"{', '.join(NOUNS)}; expected such as woman_anna.jpg"
            )
        found.append(Subject(name=photo.stem, noun=noun, photo=photo))
    if not found:
        raise ProtocolError(
            f"{folder}: expected photos of one person each, such as woman_anna.jpg, found none"
        )
    return found


def single_trials(subjects: Sequence[Subject], prompts: Prompts, images: int) -> list[Trial]:
    """Each subject by each prompt, so many times."""
    return [
        Trial(subjects=(subject,), prompt=template.format(person=subject.words), seed=seed)
        for subject in subjects
        for template in prompts.single
        for seed in range(images)
    ]


def multi_trials(
    subjects: Sequence[Subject], prompts: Prompts, images: int, pairs: int | None = None
) -> list[Trial]:
    """Each pair by each prompt, so many times; pairs: at most so many, spread over the subjects."""
    listed = sorted(
        itertools.combinations(range(len(subjects)), 2), key=lambda pair: (pair[1] - pair[0], pair)
    )
    return [
        Trial(
            subjects=(subjects[first], subjects[second]),
            prompt=template.format(first=subjects[first].words, second=subjects[second].words),
            seed=seed,
        )
        for first, second in listed[:pairs]
        for template in prompts.multi
        for seed in range(images)
    ]
