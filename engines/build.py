"""`python -m engines.build BUNDLE`: TensorRT plans from a bundle's ONNX, each proved."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.folder import Bundle
from engines.bundle.lock import build_lock
from engines.bundle.plan_record import PlanSpec
from engines.bundle.records import document_of
from engines.cli.command import run_command
from engines.cli.flags import one_of
from engines.cli.parser import command_parser
from engines.cli.progress import Display, display_on
from engines.contract import Component
from engines.plans.bundle_plans import PlanRequest, PlansBuilt, plan_job, plan_specs
from engines.plans.flags import add_plan_flags, plan_request
from engines.plans.forecast import forecast, plan_nbytes, told_room
from engines.plans.here import build_here
from engines.plans.plans_only import GIVEN_UP
from engines.plans.store import finished_plan
from engines.system.processes import run_module
from engines.tensorrt.target import PlanTarget, plan_target

# What new plans are checked with: the command that users draw with, in a process of its own.
draw = partial(run_module, commands.PREFIX + commands.DRAW)


def parser() -> argparse.ArgumentParser:
    flags = command_parser(
        commands.PLANS,
        __doc__,
        ["bundle"],
        ["bundle", "--library", "tensorrt-rtx", "--profile", "native", "images", "--forecast"],
    )
    flags.add_argument("bundle", type=Path, help="the bundle's folder")
    add_plan_flags(flags)
    flags.add_argument(
        "--component", dest="components", nargs="+", type=one_of(Component),
        default=list(Component), metavar="NAME", help="build these only (default: all)",
    )  # fmt: skip
    flags.add_argument(
        "--forecast", "--forecast-only", "--dry-run", dest="forecast_only", action="store_true",
        help="say what a build would take, and stop",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    flags = parser()
    options = flags.parse_args(arguments)
    request = replace(plan_request(flags, options), components=tuple(options.components))
    return run_command(lambda: _build(options, request), as_json=options.json)


def _build(options: argparse.Namespace, request: PlanRequest) -> dict[str, Any]:
    bundle = Bundle.open(options.bundle, plans=False)
    target = plan_target(request.library, request.architectures)
    display = display_on()
    if options.forecast_only:
        return _forecast(bundle, target, request, display)
    started = time.monotonic()
    with build_lock(options.bundle):
        outcome = build_here(options.bundle, target, request, display, draw)
    return _report(options.bundle, outcome, time.monotonic() - started)


def _forecast(
    bundle: Bundle, target: PlanTarget, request: PlanRequest, display: Display
) -> dict[str, Any]:
    jobs = [plan_job(bundle, spec) for spec in plan_specs(bundle, target, request)]
    forecasts = [forecast(job, target) for job in jobs]
    for each in forecasts:
        display.say(each.sentence())
    known = _known(bundle, [job.spec for job in jobs], display)
    if missing := [job for job in jobs if job.name not in known]:
        display.say(told_room(bundle, missing))
    if request.plans_only:
        nbytes = sum(file.nbytes for file in bundle.manifest.model_files().values())
        display.say(
            f"--plans-only then drops {nbytes >> 20} MiB of ONNX models and gives up {GIVEN_UP}"
        )
    return {
        "bundle": str(bundle.path),
        "expected_nbytes": {each.name: each.expected_nbytes for each in forecasts},
        "plan_nbytes": {
            job.name: plan_nbytes(job.spec.component, job.weights_nbytes, job.spec.shapes)
            for job in missing
        },
        "estimated": {
            job.name: {
                "weights_nbytes": job.weights_nbytes,
                "device_memory_nbytes": each.activations_nbytes,
            }
            for job, each in zip(jobs, forecasts, strict=True)
            if job in missing
        },
        "known": known,
    }


def _known(bundle: Bundle, specs: list[PlanSpec], display: Display) -> dict[str, Any]:
    """What plans that are built already take on the GPU."""
    found = {}
    for spec in specs:
        record = finished_plan(bundle.path, bundle.manifest, spec)
        if record is None:
            continue
        built = record.built
        weights = built.file.nbytes if built.weights_nbytes is None else built.weights_nbytes
        display.say(
            f"{spec.name} is built: on the GPU it takes {weights >> 20} MiB of weights and "
            f"{built.device_memory_nbytes >> 20} MiB of activations"
        )
        found[spec.name] = {
            "weights_nbytes": built.weights_nbytes,
            "device_memory_nbytes": built.device_memory_nbytes,
        }
    return found


def _report(bundle: Path, outcome: PlansBuilt, seconds: float) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "built": list(outcome.built),
        "kept": list(outcome.kept),
        "seconds": round(seconds, 1),
        "plans": {
            plan.spec.name: {
                "nbytes": plan.built.file.nbytes,
                "device_memory_nbytes": plan.built.device_memory_nbytes,
                "proofs": document_of(plan.built.proofs),
                "parity": None if plan.built.parity is None else document_of(plan.built.parity),
            }
            for plan in outcome.manifest.plans
        },
    }


if __name__ == "__main__":
    sys.exit(main())
