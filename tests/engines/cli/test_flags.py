"""Flags from a frozen dataclass: names, defaults, types and choices are its fields'."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest

from engines.bundle.records import Count, RecordError
from engines.cli.flags import add_flags, from_flags

HELP = {"help": "what it does"}


class Kind(StrEnum):
    STEP = "step"
    SCENE = "scene"


@dataclass(frozen=True, kw_only=True)
class Told:
    switch: bool = field(default=False, metadata=HELP)
    some_number: Count = field(default=3, metadata=HELP)
    limit_s: float | None = field(default=None, metadata=HELP)
    place: Path = field(default=Path("bundle"), metadata=HELP)
    name: str = field(default="a", metadata=HELP | {"choices": ["a", "b"]})
    device: Literal["cpu", "cuda"] = field(default="cpu", metadata=HELP)
    kinds: tuple[Kind, ...] = field(default=tuple(Kind), metadata=HELP)


def told(words: str) -> Told:
    parser = argparse.ArgumentParser()
    add_flags(parser, Told)
    return from_flags(parser.parse_args(words.split()), Told)


def test_nothing_typed_is_the_dataclass_itself() -> None:
    assert told("") == Told()


def test_each_word_becomes_its_fields_type() -> None:
    words = (
        "--switch --some-number 5 --limit-s 2 --place there --name b --device cuda --kinds scene"
    )
    assert told(words) == Told(
        switch=True, some_number=5, limit_s=2.0, place=Path("there"), name="b", device="cuda",
        kinds=(Kind.SCENE,),
    )  # fmt: skip


def test_several_words_become_a_tuple() -> None:
    assert told("--kinds scene step").kinds == (Kind.SCENE, Kind.STEP)


@pytest.mark.parametrize(
    "words", ["--some-number many", "--name c", "--device tpu", "--kinds all", "--kinds"]
)
def test_a_word_that_is_no_choice_or_no_number_ends_the_program(words: str) -> None:
    with pytest.raises(SystemExit) as exited:
        told(words)
    assert exited.value.code == 2


def test_a_number_out_of_its_range_is_named() -> None:
    with pytest.raises(RecordError, match="some_number must be 1 or more, found 0"):
        told("--some-number 0")
