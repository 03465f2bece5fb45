"""`python -m runtime.doctor [--bundle BUNDLE]`: what this machine has, lacks, and what fixes it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from engines import commands
from engines.cli.command import DONE, FAILED
from engines.cli.parser import command_parser
from runtime.doctor.bundle import bundle_findings, provider_finding
from runtime.doctor.finding import Finding, State
from runtime.doctor.machine import (
    disk_finding,
    gpu_findings,
    installed_packages,
    onnxruntime_finding,
    package_findings,
    tensorrt_findings,
)


def examined(bundle: Path | None) -> list[Finding]:
    """Everything that decides how pictures are drawn here, in the order to fix it in."""
    packages = installed_packages()
    gpu, of_gpu = gpu_findings()
    versions, of_tensorrt = tensorrt_findings(gpu, packages)
    found = [*package_findings(packages), *of_gpu, *of_tensorrt]
    found += [onnxruntime_finding(gpu), disk_finding(bundle or Path.cwd())]
    opened = None
    if bundle is not None:
        opened, of_bundle = bundle_findings(bundle, gpu, versions)
        found += of_bundle
    if opened is not None:
        found.append(provider_finding(opened, found))
    return found


def parser() -> argparse.ArgumentParser:
    flags = command_parser(commands.DOCTOR, __doc__, ["--bundle", "bundle"])
    flags.add_argument(
        "--bundle", type=Path, help="look at this bundle as well (default: the machine alone)"
    )
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Print the report; exits with 1 where something is broken."""
    options = parser().parse_args(arguments)
    found = examined(options.bundle)
    problems = [finding for finding in found if finding.state is State.PROBLEM]
    if options.json:
        print(json.dumps({"ok": not problems, "findings": [asdict(each) for each in found]}))
    else:
        for finding in found:
            print(f"{finding.state:<8} {finding.about}: {finding.text}")
            if finding.fix is not None:
                print(f"{'':<8} -> {finding.fix}")
    if problems:
        first = problems[0]
        fix = "" if first.fix is None else f": {first.fix}"
        print(f"{first.about}: {first.text}{fix}", file=sys.stderr)
    return FAILED if problems else DONE


if __name__ == "__main__":
    sys.exit(main())
