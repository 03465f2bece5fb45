"""`python -m engines.verify BUNDLE`: check the digest of every file, and plans on a GPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.folder import Bundle
from engines.cli.command import run_command
from engines.cli.parser import command_parser


def parser() -> argparse.ArgumentParser:
    flags = command_parser(commands.VERIFY, __doc__, ["bundle"], ["bundle", "--on-gpu"])
    flags.add_argument("bundle", type=Path, help="the bundle's folder")
    flags.add_argument(
        "--on-gpu", action="store_true",
        help="compare every plan that this machine's GPU runs with the CPU, and record the result",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def verify() -> dict[str, Any]:
        bundle = Bundle.open(options.bundle)
        files = bundle.verify()
        if not options.json:
            print(f"{options.bundle}: {files} files match their digests")
            if bundle.manifest.plans_only:
                print("it holds plans alone: its ONNX models were dropped (--plans-only)")
        found: dict[str, Any] = {
            "bundle": str(options.bundle),
            "files": files,
            "verified": True,
            "plans_only": bundle.manifest.plans_only,
        }
        if options.on_gpu:
            found["plans"] = _compared(options.bundle, say=not options.json)
        return found

    return run_command(verify, as_json=options.json)


def _compared(bundle: Path, *, say: bool) -> dict[str, float]:
    """Relative L2 of each plan that was compared, by its name."""
    # Imported here: digests need no GPU.
    from engines.plans.proofs.on_gpu import compare_on_gpu

    found = {}
    for record in compare_on_gpu(bundle):
        parity = record.built.parity
        assert parity is not None
        found[record.spec.name] = parity.relative_l2
        if say:
            print(
                f"{record.spec.name}: within {parity.relative_l2:.1e} of the CPU (bound "
                f"{parity.bound:.1e}) on {parity.gpu}"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
