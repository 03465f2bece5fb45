"""JSON becomes dataclasses only where every type, range and name is what the class says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.records import Count, Range, RecordError, Sha256, from_json, read, to_json


class _Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class _Leaf:
    count: Count
    share: Annotated[float, Range(0, 1)] = 0.0


@dataclass(frozen=True, kw_only=True)
class _Measured:
    value: float


@dataclass(frozen=True, kw_only=True)
class _Tree:
    name: str
    color: _Color
    leaf: _Leaf
    path: Path
    pair: tuple[int, str]
    many: tuple[_Leaf, ...]
    by_name: dict[str, list[int]]
    by_number: Mapping[int, _Color]
    kind: Literal["oak", "elm"] = "oak"
    digest: Sha256 | None = None
    flag: bool = False
    rest: dict[_Color, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "weed":
            raise ValueError("a weed is no tree")


TREE = _Tree(
    name="Ä", color=_Color.RED, leaf=_Leaf(count=2, share=0.5), path=Path("a/b"), pair=(1, "x"),
    many=(_Leaf(count=1), _Leaf(count=3)), by_name={"n": [1, 2]}, by_number={80: _Color.BLUE},
    digest="0" * 64, flag=True, rest={_Color.BLUE: {"free": [None]}},
)  # fmt: skip


def test_what_is_written_is_read_again() -> None:
    assert from_json(_Tree, to_json(TREE)) == TREE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name must be a string, found 3"),
        ({"name": "weed"}, "a weed is no tree"),
        ({"color": "green"}, "color must be red or blue, found 'green'"),
        ({"leaf": {"count": 0}}, r"leaf\.count must be 1 or more, found 0"),
        ({"leaf": {"count": True}}, r"leaf\.count must be an integer, found True"),
        ({"leaf": {"count": 1.0}}, r"leaf\.count must be an integer, found 1\.0"),
        ({"leaf": {"count": 1, "share": 1.5}}, r"leaf\.share must be 0 or more and 1 or less"),
        ({"leaf": {"count": 1, "share": "1"}}, r"leaf\.share must be float"),
        ({"leaf": {}}, r"leaf\.count is missing"),
        ({"leaf": {"count": 1, "size": 2}}, "leaf has unknown fields: size"),
        ({"leaf": [1]}, "leaf must be an object"),
        ({"pair": [1]}, "pair must be 2 values"),
        ({"pair": [1, 2]}, r"pair\[1\] must be a string"),
        ({"many": {"count": 1}}, "many must be a list"),
        ({"many": [{"count": 1}, {}]}, r"many\[1\]\.count is missing"),
        ({"by_name": {"n": [1, None]}}, r"by_name\.n\[1\] must be an integer, found None"),
        ({"by_number": {"x": "red"}}, "by_number must be an integer, found 'x'"),
        ({"kind": "ash"}, "kind must be 'oak' or 'elm', found 'ash'"),
        ({"digest": "0" * 63}, "digest must be 64 hexadecimal digits"),
        ({"flag": 1}, "flag must be bool, found 1"),
        ({"other": 1}, "_Tree has unknown fields: other"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(change: dict[str, Any], words: str) -> None:
    document = json.loads(to_json(TREE)) | change
    with pytest.raises(ValueError, match=words):
        read(_Tree, document)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_no_number_that_is_not_finite_gets_in(number: str) -> None:
    with pytest.raises(RecordError):
        from_json(_Measured, f'{{"value": {number}}}')


def test_nesting_without_end_is_an_error_of_the_document() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        from_json(_Tree, "[" * 100_000)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(to_json(TREE)))), _JSON)
def test_any_value_anywhere_is_read_or_refused(name: str, value: Any) -> None:
    document = json.loads(to_json(TREE)) | {name: value}
    try:
        tree = read(_Tree, document)
    except ValueError:
        return
    assert read(_Tree, json.loads(to_json(tree))) == tree
