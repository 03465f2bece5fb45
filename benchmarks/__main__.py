"""`python -m benchmarks NAME [--quick] [--json]`: run one benchmark and append its record."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

from benchmarks.record import append, table
from engines.cli import run_command

# Each is benchmarks/<name>.py with measured(*, quick: bool) -> a record.
BENCHMARKS = {
    "cubins": "what the compiled kernels are made of; needs no GPU",
    "quality": "identity and prompt consistency of the shipped model; needs no GPU",
    "kernels": "the kernels against eager and compiled PyTorch; needs a GPU",
}


def main(words: list[str] | None = None) -> int:
    """Exit code 0: measured; 1: failed, with the reason; 2: the words were wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, print, and append to benchmarks/results/.",
        epilog="; ".join(f"{name}: {about}" for name, about in BENCHMARKS.items()),
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="fewer cases; recorded as quick")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    options = parser.parse_args(words)

    def command() -> dict[str, Any]:
        entry = import_module(f"benchmarks.{options.name}").measured(quick=options.quick)
        entry["quick"] = options.quick
        path = append(entry)
        if not options.json:
            print(table(entry["rows"]))
            print(f"appended to {path}")
        return dict(entry)

    return run_command(command, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
