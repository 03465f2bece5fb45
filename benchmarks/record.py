"""What every measurement carries: machine, versions, commit; appended, never overwritten."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

_PACKAGES = ("torch", "triton", "numpy", "cuda-bindings", "onnxruntime", "tensorrt")


def record(name: str, rows: list[dict[str, Any]], *, gpu: str | None) -> dict[str, Any]:
    """One benchmark's rows with where and with what they came about; gpu None: ran on none."""
    return {
        "benchmark": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "gpu": gpu,
            "python": platform.python_version(),
        },
        "versions": {package: _version(package) for package in _PACKAGES},
        "rows": rows,
    }


def append(entry: dict[str, Any]) -> Path:
    """Append a record as one JSON line to results/<benchmark>.jsonl; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{entry['benchmark']}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; the first row names the columns."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[c]) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
