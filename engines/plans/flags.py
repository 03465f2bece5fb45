"""The flags that say which plans to build, for every command that builds them."""

from __future__ import annotations

import argparse

from engines.bundle.plan_record import PlanOptionError, PlanOptions
from engines.cli.flags import add_flags, from_flags
from engines.plans.bundle_plans import PlanRequest
from engines.plans.profiles import PROFILES


def add_plan_flags(flags: argparse.ArgumentParser) -> None:
    """Names, defaults and help are those of PlanOptions and PROFILES."""
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
