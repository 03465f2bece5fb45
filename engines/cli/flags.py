"""Command-line flags from a frozen dataclass: names, defaults, types and help are its fields'."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from enum import Enum, StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engines.bundle import records
from engines.errors import did_you_mean

Options = TypeVar("Options")
Choice = TypeVar("Choice", bound=StrEnum)
Parser = argparse.ArgumentParser | argparse._ArgumentGroup

# What a field's metadata may say, in argparse's own words.
_SAID = ("help", "choices", "metavar", "type")


def add_flags(parser: Parser, options: type[Any]) -> None:
    """Add a flag for each field: a switch for a bool, several words for a tuple, else one word.

    A field's metadata has its "help", what else of _SAID its type does not say, and the "group"
    that --help lists it in, if any. The values of an enum or a Literal are choices.
    """
    hints = get_type_hints(options)
    groups: dict[str | None, Parser] = {None: parser}
    for field in dataclasses.fields(options):
        name = "--" + field.name.replace("_", "-")
        said = {key: field.metadata[key] for key in _SAID if key in field.metadata}
        words = {"default": field.default, **_argument(hints[field.name]), **said}
        title = field.metadata.get("group")
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        groups[title].add_argument(name, **words)


def one_of(kind: type[Choice]) -> Callable[[str], Choice]:
    """What argparse makes a word into a member of an enum with; a near miss is named."""

    def member(word: str) -> Choice:
        try:
            return kind(word)
        except ValueError:
            names = [each.value for each in kind]
            raise argparse.ArgumentTypeError(
                f"{word!r} is none of {', '.join(names)}{did_you_mean(word, names)}"
            ) from None

    return member


def from_flags(namespace: argparse.Namespace, options: type[Options]) -> Options:
    """The dataclass that was asked for.

    Raises what its own checks raise, and RecordError where a value is outside its field's range.
    """
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    words = {name: records.document_of(getattr(namespace, name)) for name in names}
    return records.read(options, words)


def _argument(hint: Any) -> dict[str, Any]:
    """What argparse must know of a field's type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (inner,) = (each for each in arguments if each is not NoneType)
        return _argument(inner)
    if origin is tuple:
        return {"nargs": "+", **_argument(arguments[0])}
    if origin is Literal:
        return {"choices": arguments}
    if hint is bool:
        return {"action": "store_true"}
    if issubclass(hint, Enum):
        return {"choices": [each.value for each in hint]}
    if hint in (int, float):
        return {"type": hint, "metavar": "N"}
    return {"type": Path} if hint is Path else {}
