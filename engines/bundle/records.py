"""JSON and frozen dataclasses: read and written from the dataclasses' own type hints, here alone.

A field's type says what its JSON must be: numbers, strings, enums, paths, lists, tuples, mappings
and other dataclasses. `Annotated[int, Range(0)]` and `Annotated[str, Pattern(...)]` say more.
Whatever else a class demands stands in its `__post_init__`, as everywhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

Record = TypeVar("Record")


class RecordError(ValueError):
    """A document that is not what the dataclass says: the place, what it must be, what it is."""


@dataclass(frozen=True)
class Range:
    """A number from `least` to `most`."""

    least: float = -math.inf
    most: float = math.inf

    def check(self, value: Any) -> str | None:
        if self.least <= value <= self.most:
            return None
        bounds = [f"{self.least:g} or more"] * (self.least > -math.inf)
        bounds += [f"{self.most:g} or less"] * (self.most < math.inf)
        return " and ".join(bounds)


@dataclass(frozen=True)
class Pattern:
    """A string that a regular expression matches as a whole."""

    pattern: str
    what: str

    def check(self, value: Any) -> str | None:
        return None if re.fullmatch(self.pattern, value) else self.what


Count = Annotated[int, Range(1)]
Nbytes = Annotated[int, Range(0)]
Seconds = Annotated[float, Range(0)]
# The path of a file below a bundle, with forward slashes: nothing that leads out of it.
InsidePath = Annotated[
    str,
    Pattern(
        r"(?!.*(?:^|/)\.{1,2}(?:/|$))[^/\\:\x00]+(?:/[^/\\:\x00]+)*",
        "the path of a file inside the bundle",
    ),
]
Sha256 = Annotated[str, Pattern(r"[0-9a-f]{64}", "64 hexadecimal digits")]


def read(cls: type[Record], document: object) -> Record:
    """An object of a dataclass from parsed JSON.

    Every field without a default must be there and nothing else may be. Raises RecordError, and
    ValueError where `__post_init__` does.
    """
    return cast(Record, _value(cls, document, ""))


def from_json(cls: type[Record], text: str | bytes) -> Record:
    """The same from text; raises RecordError or ValueError (json.JSONDecodeError is one)."""
    try:
        return read(cls, json.loads(text))
    except (RecursionError, OverflowError) as error:
        raise RecordError(f"nested too deep, or a number is too large ({error})") from error


def document_of(record: Any) -> Any:
    """A dataclass object as what json.dumps takes; `read` gives an equal object."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: document_of(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {_key(key): document_of(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [document_of(each) for each in record]
    if isinstance(record, Enum):
        return record.value
    return str(record) if isinstance(record, Path) else record


def to_json(record: Any, *, indent: int | None = None) -> str:
    """A dataclass object as text; equal objects give equal text."""
    return json.dumps(document_of(record), indent=indent, allow_nan=False)


def _key(key: Any) -> str:
    return str(key.value if isinstance(key, Enum) else key)


def _value(hint: Any, found: Any, where: str) -> Any:
    """`found` as the type that a hint names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return found
    if origin is Annotated:
        value = _value(arguments[0], found, where)
        for rule in arguments[1:]:
            if isinstance(rule, Range | Pattern) and (wanted := rule.check(value)) is not None:
                raise _wrong(where, wanted, found)
        return value
    if origin in (Union, UnionType):
        return _one_of(arguments, found, where)
    if origin is Literal:
        if found not in arguments:
            raise _wrong(where, " or ".join(map(repr, arguments)), found)
        return found
    if origin in (list, tuple):
        return _sequence(origin, arguments, found, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(arguments, found, where)
    if dataclasses.is_dataclass(hint):
        return _record(hint, found, where)
    return _scalar(hint, found, where)


def _one_of(hints: tuple[Any, ...], found: Any, where: str) -> Any:
    if found is None and NoneType in hints:
        return None
    problems = []
    for hint in hints:
        if hint is not NoneType:
            try:
                return _value(hint, found, where)
            except RecordError as error:
                problems.append(error)
    raise problems[0]


def _sequence(kind: type[Any], hints: tuple[Any, ...], found: Any, where: str) -> Any:
    if not isinstance(found, list | tuple):
        raise _wrong(where, "a list", found)
    if kind is list or hints[-1] is Ellipsis:
        hints = (hints[0],) * len(found)
    elif len(found) != len(hints):
        raise _wrong(where, f"{len(hints)} values", found)
    pairs = enumerate(zip(hints, found, strict=True))
    values = [_value(h, each, f"{where}[{index}]") for index, (h, each) in pairs]
    return kind(values)


def _mapping(hints: tuple[Any, ...], found: Any, where: str) -> dict[Any, Any]:
    if not isinstance(found, Mapping):
        raise _wrong(where, "an object", found)
    key, value = hints
    return {
        _value(key, int(name) if key is int and name.isdecimal() else name, where): _value(
            value, each, _inside(where, name)
        )
        for name, each in found.items()
    }


def _record(cls: Any, found: Any, where: str) -> Any:
    if not isinstance(found, Mapping):
        raise _wrong(where, "an object", found)
    hints, fields = _hints(cls), dataclasses.fields(cls)
    if unknown := sorted(set(found) - {field.name for field in fields}):
        names = ", ".join(unknown)
        raise RecordError(f"{where or cls.__name__} has unknown fields: {names}")
    values = {}
    for field in fields:
        if field.name in found:
            place = _inside(where, field.name)
            values[field.name] = _value(hints[field.name], found[field.name], place)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise RecordError(f"{_inside(where, field.name)} is missing")
    return cls(**values)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _scalar(hint: Any, found: Any, where: str) -> Any:
    if hint is float and isinstance(found, int | float) and not isinstance(found, bool):
        if math.isfinite(found):
            return float(found)
    elif hint is Path and isinstance(found, str):
        return Path(found)
    elif issubclass(hint, Enum):
        try:
            return hint(found)
        except ValueError:
            raise _wrong(where, " or ".join(str(each.value) for each in hint), found) from None
    elif isinstance(found, hint) and isinstance(found, bool) == (hint is bool):
        return found
    raise _wrong(where, {int: "an integer", str: "a string"}.get(hint, hint.__name__), found)


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _wrong(where: str, wanted: str, found: object) -> RecordError:
    return RecordError(f"{where or 'the document'} must be {wanted}, found {found!r:.80}")
