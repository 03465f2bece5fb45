"""`python -m engines.diff A B`: what two bundles' manifests say differently."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.differences import differences, same_graphs
from engines.bundle.folder import Bundle
from engines.bundle.records import document_of
from engines.cli.command import run_command
from engines.cli.parser import command_parser


def parser() -> argparse.ArgumentParser:
    flags = command_parser(commands.DIFF, __doc__, ["bundle", "other-bundle"])
    flags.add_argument("first", type=Path, metavar="A", help="a bundle's folder")
    flags.add_argument("second", type=Path, metavar="B", help="another's")
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def diff() -> dict[str, Any]:
        first, second = (
            Bundle.open(path, plans=False).manifest for path in (options.first, options.second)
        )
        found, same = differences(first, second), same_graphs(first, second)
        if not options.json:
            other = ", ".join(name for name, equal in same.items() if not equal)
            print(f"other graphs or weights: {other}" if other else "all graphs and weights equal")
            for difference in found:
                print(difference)
        return {
            "equal": not found,
            "same_graphs": {str(name): equal for name, equal in same.items()},
            "differences": [document_of(each) for each in found],
        }

    return run_command(diff, as_json=options.json, resumes=False)


if __name__ == "__main__":
    sys.exit(main())
