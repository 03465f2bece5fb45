"""`python -m benchmarks NAME [--quick] [--json]`: run one benchmark and append its record."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.harness.record import ReferenceMismatchError, Status, append, record, table
from engines.cli.command import run_command
from engines.errors import ProviderUnavailableError

# Each is benchmarks/<name>.py with measured(*, quick: bool, ...) -> a record. A module that takes
# more than quick has add_flags(parser), whose flags measured() gets by name; one that prints more
# than its rows has text(record); one that starts others has RUNS_OTHERS and gets results.
BENCHMARKS = {
    "latency": "one picture: where its time goes, start-up and memory",
    "throughput": "pictures a second against images per call and concurrent requests",
    "scaling": "cost against steps, size, people and images, beside the counted FLOPs",
    "peers": "the same work by what a user would pick instead, in turns with ours",
    "build": "time and peak memory of each step of an export",
    "roofline": "this machine's peaks, and how near each component comes to them",
    "quality": "identity and prompt consistency of the shipped model; needs no GPU",
    "kernels": "the kernels against eager and compiled PyTorch; needs a GPU",
    "cubins": "what the compiled kernels are made of; needs no GPU",
    "gpu": "everything that a GPU can tell, in under nine minutes",
    "report": "one HTML page and its plots from the records; measures nothing",
}


def main(words: list[str] | None = None) -> int:
    """Exit code 0: measured; 1: failed or skipped, with the reason; 2: the words were wrong."""
    words = sys.argv[1:] if words is None else words
    # The name decides which module's flags are read, and only that module is imported.
    name = next((word for word in words if word in BENCHMARKS), None)
    try:
        module = import_module(f"benchmarks.measures.{name}") if name else None
    except ModuleNotFoundError as error:
        return run_command(partial(_lacking, name, error), as_json="--json" in words)
    options = vars(_parser(module).parse_args(words))
    name, as_json = options.pop("name"), options.pop("json")
    results: Path | None = options.pop("results")

    def command() -> dict[str, Any]:
        assert module is not None
        if not hasattr(module, "measured"):
            return dict(module.written(results=results, **options))
        entry, path = _measured(name, module, options, results)
        if not as_json:
            print(module.text(entry) if hasattr(module, "text") else table(entry["rows"]))
            print(f"appended to {path}")
        return entry

    return run_command(command, as_json=as_json)


def _lacking(name: str | None, error: ModuleNotFoundError) -> dict[str, Any]:
    raise ProviderUnavailableError(
        f"{name} needs {error.name}, which is not installed; type: pip install -e '.[bench,cpu]'"
    ) from error


def _measured(
    name: str, module: ModuleType, options: dict[str, Any], results: Path | None
) -> tuple[dict[str, Any], Path]:
    """Run and append; what was skipped or refused is appended as that, and raised."""
    try:
        passed_on = {"results": results} if hasattr(module, "RUNS_OTHERS") else {}
        entry = dict(module.measured(**options, **passed_on))
    except (ProviderUnavailableError, ReferenceMismatchError) as error:
        skipped = isinstance(error, ProviderUnavailableError)
        status = Status.SKIPPED if skipped else Status.REFUSED
        entry = record(name, [], gpu=None, status=status, reason=str(error))
        append(entry | {"quick": options["quick"]}, results)
        raise
    entry["quick"] = options["quick"]
    return entry, append(entry, results)


def _parser(module: ModuleType | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, print, and append to benchmarks/results/.",
        epilog="; ".join(f"{name}: {about}" for name, about in BENCHMARKS.items()),
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="fewer cases; recorded as quick")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.add_argument(
        "--results", type=Path, help="folder of the records (default: benchmarks/results)"
    )
    if module is not None and hasattr(module, "add_flags"):
        module.add_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
