"""Records as lines of JSON: one file a benchmark, appended to, read whatever the lines' age."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.photographs.record import Table1Record
from benchmarks.pictures.record import PresetsRecord
from benchmarks.schema.build import BuildRecord
from benchmarks.schema.cubins import CubinsRecord
from benchmarks.schema.gpu import DeviceRecord, GpuRecord
from benchmarks.schema.kernels import KernelsRecord
from benchmarks.schema.latency import LatencyRecord
from benchmarks.schema.peers import PeersRecord
from benchmarks.schema.quality import CurveRecord, NoticedRecord, QualityRecord
from benchmarks.schema.record import NotMeasured, Record, Status
from benchmarks.schema.roofline import RooflineRecord
from benchmarks.schema.scaling import ScalingRecord
from benchmarks.schema.throughput import ThroughputRecord
from benchmarks.serving.record import ServingRecord
from engines.bundle.files import write_atomic
from engines.bundle.records import document_of, read
from engines.errors import FaceDiffuserError

RESULTS = Path(__file__).parents[1] / "results"

# In the order in which the report shows them.
RECORDS: Mapping[str, type[Record]] = {
    "latency": LatencyRecord,
    "throughput": ThroughputRecord,
    "serving": ServingRecord,
    "presets": PresetsRecord,
    "scaling": ScalingRecord,
    "peers": PeersRecord,
    "roofline": RooflineRecord,
    "kernels": KernelsRecord,
    "cubins": CubinsRecord,
    "build": BuildRecord,
    "quality": QualityRecord,
    "curve": CurveRecord,
    "noticed": NoticedRecord,
    "table1": Table1Record,
    "device": DeviceRecord,
    "gpu": GpuRecord,
}

# What lines of schema 1 do not say.
_SCHEMA_1: Mapping[str, Any] = {
    "schema_version": 1, "status": Status.MEASURED.value, "reason": None, "command": None,
    "seeds": [], "facts": {}, "quick": False,
}  # fmt: skip


class UnreadableRecordError(FaceDiffuserError):
    """A line of a results file is not a record of its benchmark; names the file and the line."""


def line_of(record: Record) -> dict[str, Any]:
    """What is printed and appended: the header's fields, then facts and rows, all on one level."""
    document: dict[str, Any] = document_of(record)
    return {**document.pop("header"), **document}


def record_of(name: str, line: Mapping[str, Any]) -> Record:
    """The record of such a line; raises ValueError where it is none of this benchmark."""
    header = {**_SCHEMA_1, **line}
    found = {part: header.pop(part) for part in ("facts", "rows")}
    measured = header["status"] == Status.MEASURED
    return read(RECORDS[name] if measured else NotMeasured, {"header": header, **found})


def append(record: Record, folder: Path | None = None) -> Path:
    """Append a record as one line of JSON to <folder>/<benchmark>.jsonl; returns the file.

    What `keep` kept of the same run is in it, and goes.
    """
    path = _file_of(record, folder)
    _append_line(path, line_of(record))
    _kept(path).unlink(missing_ok=True)
    return path


def keep(record: Record, folder: Path | None = None) -> None:
    """Keep a record so far, called after every point, lest a run that is ended lose it."""
    path = _file_of(record, folder)
    write_atomic(_kept(path), json.dumps(line_of(record), allow_nan=False).encode())


def recover(name: str, folder: Path | None = None) -> bool:
    """Append what a run kept that did not come to its end; whether there was any."""
    path = (RESULTS if folder is None else folder) / f"{name}.jsonl"
    kept = _kept(path)
    if not kept.is_file():
        return False
    _append_line(path, json.loads(kept.read_bytes()))
    kept.unlink()
    return True


def _file_of(record: Record, folder: Path | None) -> Path:
    folder = RESULTS if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{record.header.benchmark}.jsonl"


def _kept(path: Path) -> Path:
    return path.with_suffix(".unfinished.json")


def _append_line(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def records_of(name: str, folder: Path | None = None) -> list[Record]:
    """All records of a benchmark, oldest first; raises UnreadableRecordError."""
    path = (RESULTS if folder is None else folder) / f"{name}.jsonl"
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                found.append(record_of(name, json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise UnreadableRecordError(
                    f"{path}, line {number} is no record of {name} that this version reads: {error}"
                ) from error
    return found
