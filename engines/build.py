"""`python -m engines.build BUNDLE`: TensorRT plans for this machine's GPU, from a bundle's ONNX."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.bundle.files import remove_partial_files
from engines.bundle.folder import Bundle
from engines.bundle.lock import build_lock
from engines.bundle.manifest import Manifest
from engines.bundle.plan_record import PlanRecord
from engines.cli.command import run_command
from engines.cli.flags import add_flags, from_flags
from engines.cli.progress import Display, display_on
from engines.contract import Component
from engines.errors import ProviderUnavailableError
from engines.plans.bundle_plans import PlanRequest, PlansBuilt, build_plans, plan_jobs
from engines.plans.forecast import forecast
from engines.plans.picture import compare_pictures
from engines.plans.profiles import PROFILES, PlanOptionError, PlanOptions
from engines.tensorrt.machine import Machine, this_machine


def parser() -> argparse.ArgumentParser:
    """Options take names, defaults and help from PlanOptions and PROFILES."""
    flags = argparse.ArgumentParser(prog="python -m engines.build", description=__doc__)
    flags.add_argument("bundle", type=Path, help="the bundle's folder")
    add_plan_flags(flags)
    flags.add_argument(
        "--component", dest="components", nargs="+", type=Component, choices=list(Component),
        default=list(Component), metavar="NAME", help="build these only (default: all)",
    )  # fmt: skip
    flags.add_argument(
        "--forecast-only", action="store_true", help="say what a build would take, and stop"
    )
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def add_plan_flags(flags: argparse.ArgumentParser) -> None:
    """The flags that say which plans to build and how, for every command that builds them."""
    described = "; ".join(f"{each.name}: {each.help}" for each in PROFILES.values())
    default = ", ".join(PlanRequest.profiles)
    flags.add_argument(
        "--profile", dest="profiles", nargs="+", choices=PROFILES, metavar="NAME",
        default=list(PlanRequest.profiles),
        help=f"sizes and counts to build plans for (default: {default}). {described}",
    )  # fmt: skip
    add_flags(flags, PlanOptions)


def plan_request(flags: argparse.ArgumentParser, options: argparse.Namespace) -> PlanRequest:
    """What these words ask for; words that cannot be end the program with 2."""
    try:
        plan_options = from_flags(options, PlanOptions)
    except PlanOptionError as error:
        flags.error(str(error))
    return PlanRequest(profiles=tuple(options.profiles), options=plan_options)


def main(arguments: list[str] | None = None) -> int:
    flags = parser()
    options = flags.parse_args(arguments)
    request = replace(plan_request(flags, options), components=tuple(options.components))
    return run_command(lambda: _build(options, request), as_json=options.json)


def _build(options: argparse.Namespace, request: PlanRequest) -> dict[str, Any]:
    bundle = Bundle.open(options.bundle, plans=False)
    machine = this_machine()
    display = display_on()
    if options.forecast_only:
        forecasts = [forecast(job, machine) for job in plan_jobs(bundle, machine, request)]
        for each in forecasts:
            display.say(each.sentence())
        return {"bundle": str(options.bundle), "expected_nbytes": {
            each.name: each.expected_nbytes for each in forecasts
        }}  # fmt: skip
    started = time.monotonic()
    with build_lock(options.bundle):
        outcome = build_here(options.bundle, machine, request, display)
    return _report(options.bundle, outcome, time.monotonic() - started)


def build_here(
    bundle: Path, machine: Machine, request: PlanRequest, display: Display
) -> PlansBuilt:
    """Build a bundle's plans; the caller holds its build lock. Raises as `build_plans` does."""
    remove_partial_files(bundle)

    def compare(path: Path, manifest: Manifest, records: list[PlanRecord]) -> None:
        display.say("drawing with all plans and on the CPU, to compare")
        error = compare_pictures(path, manifest, records)
        if error is None:
            display.say("some component has no plan yet, so nothing was drawn")
        else:
            display.say(f"the pictures' latents are within {error:.1e} (relative L2)")

    try:
        outcome = build_plans(bundle, machine, request, display, compare)
    finally:
        display.end()
    built, kept = len(outcome.built), len(outcome.kept)
    display.say(f"{bundle}: {built} plans built, {kept} kept, for {machine.gpu}")
    return outcome


def build_if_possible(bundle: Path, request: PlanRequest, display: Display) -> PlansBuilt | None:
    """Build plans where this machine can; else say in one sentence why not, and return None.

    The caller holds the bundle's build lock. Raises what a build that was begun raises.
    """
    try:
        machine = this_machine()
    except ProviderUnavailableError as error:
        display.say(
            f"{bundle} stops at ONNX here, without TensorRT plans: {error}. "
            f"On the machine that will run it: python -m engines.build {bundle}"
        )
        return None
    return build_here(bundle, machine, request, display)


def _report(bundle: Path, outcome: PlansBuilt, seconds: float) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "built": list(outcome.built),
        "kept": list(outcome.kept),
        "seconds": round(seconds, 1),
        "plans": {
            plan.name: {
                "nbytes": plan.nbytes,
                "half_share": plan.precision.half_share,
                "relative_l2": plan.parity.relative_l2,
                "bound": plan.parity.bound,
            }
            for plan in outcome.manifest.plans
        },
    }


if __name__ == "__main__":
    sys.exit(main())
