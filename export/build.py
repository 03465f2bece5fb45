"""`python -m export.build [--fp16 | --fp32]`: checkpoints to a bundle, checked and ready to run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import commands
from engines.bundle.manifest import Precision
from engines.bundle.quantization import Quantization
from engines.cli.command import run_command
from engines.cli.progress import Display, JsonDisplay, TerminalDisplay
from engines.contract import Component
from engines.plans.bundle_plans import PlanRequest
from engines.plans.flags import add_plan_flags, plan_request
from engines.plans.here import build_if_possible
from engines.system.processes import run_module
from export.cubins.build import ARCHITECTURES
from export.options import MODELS, BuildOptions, lora
from export.packages import require_packages

if TYPE_CHECKING:
    from export.bundle import Say
    from export.source import ModelSource

_QUANTIZATION_HELP = {
    Quantization.INT8: "for GPUs from sm_80 on and, with OpenVINO, CPUs",
    Quantization.FP8: "matrices in FP8 and convolutions in INT8, for GPUs from sm_89 on",
}
# What a bundle is checked with: the command that users draw with, in a process of its own.
draw = partial(run_module, commands.PREFIX + commands.DRAW)

_PARTS = ("base", "tdm", "sdm", "image_encoder", "revision")
_SOURCES = (*_PARTS, "tdm_lora", "sdm_lora")


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog=commands.typed(commands.BUILD), description=__doc__)
    precision = flags.add_mutually_exclusive_group()
    for each in Precision:
        precision.add_argument(
            f"--{each}", dest="precision", action="store_const", const=each,
            default=BuildOptions.precision,
        )  # fmt: skip
    for quantization in Quantization:
        flags.add_argument(
            f"--{quantization}", dest="quantizations", action="append_const", default=[],
            const=quantization,
            help=f"have the U-Nets in {quantization} too, beside half precision: about half the "
            f"size, {_QUANTIZATION_HELP[quantization]}",
        )  # fmt: skip
    flags.add_argument(
        "--calibration-photos", type=Path, nargs="+", metavar="PHOTO", default=[],
        help="photos of people that 8-bit scales are taken from (default: drawn portraits)",
    )  # fmt: skip
    flags.add_argument(
        "--calibration-prompts", type=Path, metavar="FILE",
        help="a prompt on each line, with <|image|> after the word for each person "
        "(default: six of the toolkit's own)",
    )  # fmt: skip
    flags.add_argument("--opset", type=int, choices=(21, 23), default=BuildOptions.opset)
    flags.add_argument("--model", choices=MODELS, default="shipped")
    for part in ("base", "tdm", "sdm", "image-encoder"):
        flags.add_argument(
            f"--{part}", metavar="PATH_OR_HUB_ID", help=f"take the {part} from here instead"
        )
    flags.add_argument("--revision", help="revision of the hub repositories")
    for part in ("tdm", "sdm"):
        flags.add_argument(
            f"--{part}-lora", action="append", type=lora, default=[], metavar="PATH[:WEIGHT]",
            help=f"merge this LoRA into the U-Net of the {part.upper()}, WEIGHT times (default: 1);"
            " may be given several times",
        )  # fmt: skip
    flags.add_argument(
        "--random-weights", action="store_true",
        help="full Stable Diffusion 1.5 size, seeded random weights: for size and speed",
    )  # fmt: skip
    flags.add_argument(
        "--architectures", type=int, nargs="*", choices=ARCHITECTURES, default=ARCHITECTURES,
        metavar="SM", help="GPU architectures to compile kernels for (default: all of %(choices)s)",
    )  # fmt: skip
    flags.add_argument(
        commands.ONNX_ONLY,
        action="store_true",
        help="build no TensorRT plans, even where one could",
    )
    add_plan_flags(flags)
    flags.add_argument("--out", type=Path, default=Path("bundle"))
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    flags = parser()
    options = flags.parse_args(arguments)
    if options.onnx_only and options.plans_only:
        flags.error("--onnx-only builds no plans and --plans-only keeps nothing else: name one")
    if options.random_weights and (given := [name for name in _SOURCES if getattr(options, name)]):
        flags.error(f"--random-weights reads no files; leave out --{given[0].replace('_', '-')}")
    if options.quantizations and options.precision is Precision.FP32:
        flags.error("--int8 and --fp8 stand beside half precision; leave --fp32 out")
    plans = None if options.onnx_only else plan_request(flags, options)
    words = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _build(options, plans, words), as_json=options.json)


def _build(
    options: argparse.Namespace, plans: PlanRequest | None, words: Sequence[str]
) -> dict[str, Any]:
    require_packages()
    # Only now: importing PyTorch takes seconds, and a machine without it can still be told why.
    from export.bundle import build_bundle, building_place
    from export.checkpoint.checkpoint import Checkpoint
    from export.checkpoint.random_weights import random_checkpoint
    from export.checks.picture import NOISE_PREVIEW, PREVIEW, PREVIEW_NAME
    from export.quantization.pictures import calibration_of

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    source: ModelSource
    if options.random_weights:
        source = random_checkpoint()
    else:
        given = {name: getattr(options, name) for name in _PARTS if getattr(options, name)}
        loras = {Component.TDM_UNET: options.tdm_lora, Component.SDM_UNET: options.sdm_lora}
        checkpoint = Checkpoint.open(dataclasses.replace(MODELS[options.model], **given), loras)
        for line in checkpoint.remarks():
            say(line)
        source = checkpoint
    for line in source.licenses():
        say(f"license: {line}")
    calibration = calibration_of(
        options.calibration_photos, options.calibration_prompts, full_size=options.random_weights
    )
    build_options = BuildOptions(precision=options.precision, opset=options.opset)
    with building_place(options.out) as place:
        commands.remember_build(place.folder, words)
        manifest = build_bundle(
            place.folder,
            source,
            build_options,
            say,
            options.architectures,
            draw=draw,
            preview=NOISE_PREVIEW if options.random_weights else PREVIEW,
            profiles=None if plans is None else plans.profiles,
            quantizations=options.quantizations,
            calibration=calibration,
        )
        place.publish()
        built = (
            None if plans is None else build_if_possible(options.out, plans, _display(say), draw)
        )
    say(f"{options.out} is ready; its picture is {options.out / PREVIEW_NAME}")
    return {
        "bundle": str(options.out),
        "seconds": round(time.monotonic() - started, 1),
        "parity": {
            name: {graph: figures.relative_l2 for graph, figures in record.parity.items()}
            for name, record in manifest.components.items()
        },
        "pipeline_parity": manifest.pipeline_parity,
        "plans": [plan.spec.name for plan in (built.manifest if built else manifest).plans],
    }


def _display(say: Say) -> Display:
    """Progress of plans; sentences look like all others of this build."""
    return TerminalDisplay(sys.stderr) if sys.stderr.isatty() else JsonDisplay(sys.stderr, say)


if __name__ == "__main__":
    sys.exit(main())
