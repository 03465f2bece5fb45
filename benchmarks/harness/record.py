"""How records come about: the header that each carries, and the tables that people read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import this_machine
from benchmarks.harness.options import Options
from benchmarks.schema.record import SCHEMA_VERSION, Header, NotMeasured, Record, Status
from engines.bundle.files import sha256_of_file
from engines.bundle.records import document_of
from engines.commands import BENCHMARKS, typed
from engines.errors import FaceDiffuserError

_PACKAGES = (
    "torch", "triton", "numpy", "cuda-bindings", "onnxruntime", "onnxruntime-gpu", "tensorrt",
    "diffusers", "transformers", "openvino",
)  # fmt: skip


class ReferenceMismatchError(FaceDiffuserError):
    """What was to be timed does not compute what it should; no speed is reported for it."""


def header_of(
    benchmark: str,
    options: Options,
    *,
    gpu: str | None,
    seeds: Sequence[int] = (),
    status: Status = Status.MEASURED,
    reason: str | None = None,
) -> Header:
    """Where and with what a measurement comes about; gpu: that it ran on, None for none."""
    return Header(
        benchmark=benchmark,
        schema_version=SCHEMA_VERSION,
        status=status,
        reason=reason,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        command=typed(BENCHMARKS, *sys.argv[1:]),
        machine=replace(this_machine(), gpu=gpu),
        versions={package: _version(package) for package in _PACKAGES},
        seeds=tuple(seeds),
        quick=options.quick,
    )


def not_measured(
    benchmark: str, options: Options, status: Status, error: FaceDiffuserError
) -> NotMeasured:
    """The record of a benchmark that an error ended."""
    header = header_of(benchmark, options, gpu=None, status=status, reason=str(error))
    return NotMeasured(header=header)


@cache
def code_digest(*folders: str) -> str:
    """Of all Python files below these folders of the repository: what is kept of a run is found
    again by the same code alone, whether it was committed or not."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def table_of(record: Record) -> str:
    """A record's rows as a Markdown table."""
    return table([document_of(row) for row in record.rows])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    columns = columns_of(rows)
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """In the order in which they first occur; one that is None in every row is left out."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [name for name in columns if any(row.get(name) is not None for row in rows)]


def cell(value: object) -> str:
    """A value as people read it: four digits, lists with commas, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
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
