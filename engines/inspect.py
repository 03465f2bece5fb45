"""`python -m engines.inspect BUNDLE`: what a bundle holds, how exact it is, what was proved."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.contents import document_of_contents, lines_of_contents
from engines.bundle.folder import Bundle
from engines.cli.command import run_command
from engines.cli.parser import command_parser


def parser() -> argparse.ArgumentParser:
    flags = command_parser(commands.INSPECT, __doc__, ["bundle"])
    flags.add_argument("bundle", type=Path, help="the bundle's folder")
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def inspect() -> dict[str, Any]:
        # What is wrong with a plan alone must not hide what else is inside.
        bundle = Bundle.open(options.bundle, plans=False)
        if not options.json:
            print("\n".join(lines_of_contents(bundle)))
        return document_of_contents(bundle)

    return run_command(inspect, as_json=options.json, resumes=False)


if __name__ == "__main__":
    sys.exit(main())
