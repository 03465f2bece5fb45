"""`python -m engines.verify BUNDLE`: check the digest of every file of a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.folder import Bundle
from engines.cli.command import run_command


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=commands.typed(commands.VERIFY), description=__doc__)
    parser.add_argument("bundle", type=Path, help="the bundle's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    options = parser.parse_args(arguments)

    def verify() -> dict[str, Any]:
        bundle = Bundle.open(options.bundle)
        files = bundle.verify()
        if not options.json:
            print(f"{options.bundle}: {files} files match their digests")
        return {"bundle": str(options.bundle), "files": files, "verified": True}

    return run_command(verify, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
