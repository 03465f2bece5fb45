"""Records as lines of JSON: written, read again, and read whatever their age."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.record import table
from benchmarks.schema.quality import QualityRecord
from benchmarks.schema.record import NotMeasured, Record, Status
from benchmarks.schema.results import (
    RECORDS,
    RESULTS,
    UnreadableRecordError,
    append,
    line_of,
    record_of,
    records_of,
)
from tests.benchmarks import made_up


@pytest.mark.parametrize("make", made_up.ALL)
def test_a_record_reads_as_it_was_written(make: Any, tmp_path: Path) -> None:
    record: Record = make()
    append(record, tmp_path)
    assert records_of(make.__name__, tmp_path) == [record]


def test_a_line_is_flat() -> None:
    line = line_of(made_up.peers())
    assert {"benchmark", "schema_version", "status", "machine", "quick", "facts", "rows"} <= set(
        line
    )
    assert line["rows"][0]["peer"] == "this toolkit"


def test_what_was_not_measured_has_a_reason_and_nothing_else(tmp_path: Path) -> None:
    append(made_up.not_measured("gpu", Status.SKIPPED, "no GPU"), tmp_path)
    (line,) = (tmp_path / "gpu.jsonl").read_text().splitlines()
    assert (json.loads(line)["facts"], json.loads(line)["rows"]) == ({}, [])
    (record,) = records_of("gpu", tmp_path)
    assert isinstance(record, NotMeasured)
    assert (record.header.reason, record.rows) == ("no GPU", ())


def _without_nothing(value: Any) -> Any:
    """The same without fields that say nothing, which older lines leave out."""
    if isinstance(value, dict):
        kept = {name: _without_nothing(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in (None, [], {})}
    return [_without_nothing(each) for each in value] if isinstance(value, list) else value


def test_committed_records_read_whatever_their_age() -> None:
    for path in RESULTS.glob("*.jsonl"):
        lines = path.read_text().splitlines()
        found = records_of(path.stem)
        assert len(found) == len(lines)
        for record, text in zip(found, lines, strict=True):
            assert isinstance(record, RECORDS[path.stem])
            assert record.header.machine.python
            line, again = json.loads(text), line_of(record)
            # Nothing that a line says is lost, and it gets nothing that it did not say.
            added = {"schema_version", "status"} - set(line)
            assert _without_nothing(line) == {
                name: value for name, value in _without_nothing(again).items() if name not in added
            }
    assert Path(RESULTS, "cubins.jsonl").is_file()


def test_the_first_records_of_the_quality_did_not_tell_people_apart() -> None:
    first, *_ = records_of("quality")
    assert isinstance(first, QualityRecord)
    assert {row.identity_by_people for row in first.rows} == {None}


def test_a_misspelled_or_missing_field_names_its_line(tmp_path: Path) -> None:
    append(made_up.roofline(), tmp_path)
    path = tmp_path / "roofline.jsonl"
    good = path.read_text()
    for wrong in ('"gflop_per_s": "fast"', '"gflops": 1.0'):
        path.write_text(good + good.replace('"gflop_per_s": 50.0', wrong))
        with pytest.raises(UnreadableRecordError, match=r"roofline.jsonl, line 2 .*gflop"):
            records_of("roofline", tmp_path)


def test_a_line_without_rows_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "gpu.jsonl").write_text('{"benchmark": "gpu"}\n[]\n')
    with pytest.raises(UnreadableRecordError, match="line 1"):
        records_of("gpu", tmp_path)
    with pytest.raises((ValueError, TypeError)):
        record_of("gpu", [])  # type: ignore[arg-type]


def test_a_table_has_no_column_in_which_nothing_was_measured() -> None:
    rows: list[dict[str, object]] = [
        {"peer": "a", "ms": 1.23456, "gpu": None},
        {"peer": "b", "reason": "no GPU"},
    ]
    assert table(rows).splitlines() == [
        "| peer | ms | reason |",
        "| --- | --- | --- |",
        "| a | 1.235 |  |",
        "| b |  | no GPU |",
    ]
