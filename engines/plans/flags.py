"""The flags that say which plans to build, for every command that builds them."""

from __future__ import annotations

import argparse

from engines import commands
from engines.bundle.plan_record import LibraryName, PlanOptionError, PlanOptions
from engines.cli.flags import add_flags, from_flags, one_of
from engines.plans.bundle_plans import PlanRequest, check_options
from engines.plans.plans_only import GIVEN_UP
from engines.plans.profiles import PROFILES
from engines.tensorrt.libraries import LIBRARIES, TENSORRT_RTX, in_words
from engines.tensorrt.target import check_architectures


def add_plan_flags(flags: argparse.ArgumentParser) -> None:
    """Names, defaults and help are those of PlanOptions and PROFILES."""
    group = flags.add_argument_group("TensorRT plans")
    described = "; ".join(f"{each.name}: {each.help}" for each in PROFILES.values())
    default = ", ".join(PlanRequest.profiles)
    group.add_argument(
        "--profile", dest="profiles", nargs="+", choices=PROFILES, metavar="NAME",
        default=list(PlanRequest.profiles),
        help=f"sizes and counts to build plans for (default: {default}). {described}",
    )  # fmt: skip
    group.add_argument(
        "--library", type=one_of(LibraryName), default=None, metavar="NAME",
        help="tensorrt (for the GPU that is at hand) or tensorrt-rtx (for GeForce RTX and RTX "
        "cards, built without any GPU); default: tensorrt where its GPU is at hand, else "
        "tensorrt-rtx where it is installed",
    )  # fmt: skip
    there = ", ".join(map(str, TENSORRT_RTX.architectures))
    group.add_argument(
        "--architecture", dest="plan_architectures", type=int, nargs="+", metavar="N", default=[],
        help=f"with tensorrt-rtx: build for these alone, of {there} (default: one plan for "
        f"{in_words(TENSORRT_RTX, ())})",
    )  # fmt: skip
    group.add_argument(
        commands.PLANS_ONLY, action="store_true",
        help="for an appliance: drop the ONNX models when every component has its plan; gives up "
        f"{GIVEN_UP}",
    )  # fmt: skip
    add_flags(group, PlanOptions)


def plan_request(flags: argparse.ArgumentParser, options: argparse.Namespace) -> PlanRequest:
    """What these words ask for; words that cannot be end the program with 2."""
    library, architectures = options.library, tuple(sorted(set(options.plan_architectures)))
    if library is None and architectures:
        library = LibraryName.TENSORRT_RTX
    try:
        plan_options = from_flags(options, PlanOptions)
        if library is not None:
            check_architectures(LIBRARIES[library], architectures)
            check_options(LIBRARIES[library], plan_options)
    except PlanOptionError as error:
        flags.error(str(error))
    return PlanRequest(
        library=library,
        architectures=architectures,
        profiles=tuple(options.profiles),
        options=plan_options,
        plans_only=options.plans_only,
    )
