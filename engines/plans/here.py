"""Building a bundle's plans on this machine, with every check and a word about each."""

from __future__ import annotations

from pathlib import Path

from engines import commands
from engines.bundle.candidate import Draw
from engines.bundle.files import remove_partial_files
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Manifest
from engines.bundle.plan_record import PlanRecord
from engines.cli.progress import Display
from engines.errors import PlanUnsupportedError, ProviderUnavailableError
from engines.plans.bundle_plans import PlanRequest, PlansBuilt, build_plans, check_precision
from engines.plans.plans_only import keep_plans_only
from engines.plans.proofs.picture import compare_pictures
from engines.tensorrt.target import PlanTarget, plan_target


def build_here(
    bundle: Path, target: PlanTarget, request: PlanRequest, display: Display, draw: Draw
) -> PlansBuilt:
    """Build a bundle's plans; the caller holds its build lock. Raises as `build_plans` does.

    draw: the drawing command, for the comparison of pictures.
    """
    remove_partial_files(bundle)

    def compare(path: Path, manifest: Manifest, records: list[PlanRecord]) -> None:
        display.say("drawing with all plans and on the CPU, to compare")
        error = compare_pictures(draw, path, manifest, records)
        if error is None:
            display.say("some component has no plan yet, so nothing was drawn")
        else:
            display.say(f"the pictures' latents are within {error:.1e} (relative L2)")

    try:
        outcome = build_plans(bundle, target, request, display, compare)
    finally:
        display.end()
    built, kept = len(outcome.built), len(outcome.kept)
    display.say(f"{bundle}: {built} plans built, {kept} kept, for {target.in_words()}")
    if request.plans_only or outcome.manifest.plans_only:
        display.say(keep_plans_only(bundle))
    elif any(plan.built.parity is None for plan in outcome.manifest.plans):
        display.say(
            "plans that were executed on no GPU are compared with the CPU where they are first "
            f"opened, or by {commands.on_gpu(bundle)}"
        )
    return outcome


def build_if_possible(
    bundle: Path, request: PlanRequest, display: Display, draw: Draw
) -> PlansBuilt | None:
    """Build plans where this machine can; else say in one sentence why not, and return None.

    The caller holds the bundle's build lock. Raises what a build that was begun raises.
    """
    try:
        target = plan_target(request.library, request.architectures)
        check_precision(Bundle.open(bundle, plans=False), target.library)
    except ProviderUnavailableError as error:
        if request.plans_only:
            raise
        display.say(
            f"{bundle} stops at ONNX here, without TensorRT plans: {error}. "
            f"On the machine that will run it: {commands.plans_built(bundle)}"
        )
        return None
    try:
        return build_here(bundle, target, request, display, draw)
    except PlanUnsupportedError as error:
        # Nobody asked for this library by its name, or for plans alone.
        if request.library is not None or request.plans_only:
            raise
        display.say(f"{bundle} stops at ONNX here, without plans: {error}")
        return None
