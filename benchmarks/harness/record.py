"""What every measurement carries: machine, versions, commit; appended, never overwritten."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import described
from engines.errors import FaceDiffuserError

RESULTS = Path(__file__).parents[1] / "results"

# 1 had no schema number, status, command, seeds or facts.
SCHEMA_VERSION = 2

_PACKAGES = (
    "torch", "triton", "numpy", "cuda-bindings", "onnxruntime", "onnxruntime-gpu", "tensorrt",
    "diffusers", "transformers", "openvino",
)  # fmt: skip


class ReferenceMismatchError(FaceDiffuserError):
    """What was to be timed does not compute what it should; no speed is reported for it."""


class Status(StrEnum):
    """What became of a benchmark, or of one row of it.

    SKIPPED: this machine lacks what it takes. REFUSED: the reference check failed, so there is no
    speed to report. FAILED: it was started and did not end well.
    """

    MEASURED = "measured"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"


def record(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    gpu: str | None,
    facts: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    status: Status = Status.MEASURED,
    reason: str | None = None,
) -> dict[str, Any]:
    """One benchmark's rows with where and with what they came about; gpu None: ran on none.

    facts: what holds for all rows (bundle, threads, the reference check's figures). seeds: of all
    random numbers that went in. reason: why nothing was measured.
    """
    return {
        "benchmark": name,
        "schema_version": SCHEMA_VERSION,
        "status": status.value,
        "reason": reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "machine": described() | {"gpu": gpu},
        "versions": {package: _version(package) for package in _PACKAGES},
        "seeds": list(seeds),
        "facts": dict(facts or {}),
        "rows": [dict(row) for row in rows],
    }


def append(entry: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Append a record as one JSON line to <folder>/<benchmark>.jsonl; returns the file."""
    folder = RESULTS if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{entry['benchmark']}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, allow_nan=False) + "\n")
    return path


def records(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """All records of a benchmark, oldest first; older schemas are filled up."""
    path = (RESULTS if folder is None else folder) / f"{name}.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    defaults = {
        "schema_version": 1, "status": Status.MEASURED.value, "reason": None, "command": None,
        "seeds": [], "facts": {}, "quick": False,
    }  # fmt: skip
    return [defaults | json.loads(line) for line in lines if line.strip()]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table, columns in the order in which they first occur."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the working tree, marked where it has changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
