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
from engines.cli.flags import one_of
from engines.cli.parser import command_parser
from engines.cli.progress import Display, JsonDisplay, TerminalDisplay
from engines.contract import Component
from engines.plans.bundle_plans import PlanRequest
from engines.plans.flags import add_plan_flags, plan_request
from engines.plans.here import build_if_possible
from engines.system.processes import run_module
from export.cubins.build import ARCHITECTURES
from export.options import MODELS, BuildOptions, Sources, lora
from export.packages import require_packages

if TYPE_CHECKING:
    from export.bundle import Say
    from export.source import ModelSource

_PRECISION_HELP = {
    Precision.FP16: "half precision; CPUs compute its weights in single",
    Precision.FP32: "single precision, twice the size",
}
_QUANTIZATION_HELP = {
    Quantization.INT8: "for GPUs from sm_80 on and, with OpenVINO, CPUs",
    Quantization.FP8: "matrices in FP8 and convolutions in INT8, for GPUs from sm_89 on",
}
# What a bundle is checked with: the command that users draw with, in a process of its own.
draw = partial(run_module, commands.PREFIX + commands.DRAW)

_PARTS = ("base", "tdm", "sdm", "image_encoder", "revision")
_SOURCES = (*_PARTS, "tdm_lora", "sdm_lora")


def parser() -> argparse.ArgumentParser:
    flags = command_parser(
        commands.BUILD,
        __doc__,
        ["--fp16"],
        ["--model", "released", "--dry-run"],
        ["--tdm", "model/TDM", "--sdm", "model/SDM", "--only", Component.TDM_UNET],
    )
    _add_weights(flags.add_argument_group("weights"))
    _add_form(flags.add_argument_group("form of the bundle"))
    _add_quantization(flags.add_argument_group("U-Nets in 8 bits"))
    add_plan_flags(flags)
    flags.add_argument(
        "--out", type=Path, default=Path("bundle"), metavar="FOLDER", help="the bundle's folder"
    )
    flags.add_argument(
        "--dry-run", "--forecast", dest="dry_run", action="store_true",
        help="say what would be built, from which weights, with what disk, memory and time; "
        "build and download nothing",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def _add_weights(flags: argparse._ArgumentGroup) -> None:
    flags.add_argument(
        "--model", choices=MODELS, default="shipped",
        help="the small model that ships with the toolkit, or the released weights from the hub",
    )  # fmt: skip
    for part in ("base", "tdm", "sdm", "image-encoder"):
        flags.add_argument(
            f"--{part}", metavar="PATH_OR_HUB_ID",
            help=f"take the {part} from here (default: the model's)",
        )  # fmt: skip
    flags.add_argument(
        "--revision",
        help="branch, tag or commit of hub ids that name none (default: the hub's main branch)",
    )
    for part in ("tdm", "sdm"):
        flags.add_argument(
            f"--{part}-lora", action="append", type=lora, default=[], metavar="PATH[:WEIGHT]",
            help=f"merge this LoRA into the U-Net of the {part.upper()}, WEIGHT times (1 where "
            "none is named); may be given several times",
        )  # fmt: skip
    flags.add_argument(
        "--random-weights", action="store_true",
        help="full Stable Diffusion 1.5 size, seeded random weights: for size and speed",
    )  # fmt: skip


def _add_form(flags: argparse._ArgumentGroup) -> None:
    precision = flags.add_mutually_exclusive_group()
    for each in Precision:
        default = " (the default)" if each is BuildOptions.precision else ""
        precision.add_argument(
            f"--{each}", dest="precision", action="store_const", const=each,
            default=BuildOptions.precision, help=f"{_PRECISION_HELP[each]}{default}",
        )  # fmt: skip
    flags.add_argument(
        "--opset", type=int, choices=(21, 23), default=BuildOptions.opset,
        help="of the ONNX models; 21 is for TensorRT 10 releases that do not read 23",
    )  # fmt: skip
    flags.add_argument(
        "--architectures", type=int, nargs="*", choices=ARCHITECTURES, default=ARCHITECTURES,
        metavar="SM", help="GPU architectures to compile kernels for (default: all of %(choices)s)",
    )  # fmt: skip
    flags.add_argument(
        commands.ONLY, type=one_of(Component), nargs="+", default=list(Component),
        metavar="COMPONENT",
        help=f"export and check these alone, of {', '.join(Component)}, and stop; what was there "
        "works as before, and the same command without --only goes on (default: all)",
    )  # fmt: skip
    flags.add_argument(
        commands.ONNX_ONLY,
        action="store_true",
        help="build no TensorRT plans, even where one could",
    )


def _add_quantization(flags: argparse._ArgumentGroup) -> None:
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
    from export.checks.picture import NOISE_PREVIEW, PREVIEW, PREVIEW_NAME
    from export.quantization.pictures import calibration_of

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    build_options = BuildOptions(precision=options.precision, opset=options.opset)
    if options.dry_run:
        return _dry_run(options, build_options, plans)
    source = _source(options, say)
    for line in source.licenses():
        say(f"license: {line}")
    calibration = calibration_of(
        options.calibration_photos, options.calibration_prompts, full_size=options.random_weights
    )
    with building_place(options.out) as place:
        commands.remember_build(place.folder, words)
        if len(options.only) < len(Component):
            return _only(options, place.folder, source, build_options, say)
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


def _source(options: argparse.Namespace, say: Say, *, download: bool = True) -> ModelSource:
    """The checkpoint that the words name; says what its user should hear of it."""
    from export.checkpoint.checkpoint import Checkpoint
    from export.checkpoint.random_weights import random_checkpoint

    if options.random_weights:
        return random_checkpoint()
    loras = {Component.TDM_UNET: options.tdm_lora, Component.SDM_UNET: options.sdm_lora}
    checkpoint = Checkpoint.open(_sources(options), loras, download=download)
    for line in checkpoint.remarks():
        say(line)
    return checkpoint


def _sources(options: argparse.Namespace) -> Sources:
    given = {name: getattr(options, name) for name in _PARTS if getattr(options, name)}
    return dataclasses.replace(MODELS[options.model], **given)


def _only(
    options: argparse.Namespace,
    folder: Path,
    source: ModelSource,
    build_options: BuildOptions,
    say: Say,
) -> dict[str, Any]:
    """Export and check some components, and leave the rest to a later build."""
    from export.bundle import export_components

    records = export_components(folder, source, build_options, say, only=options.only)
    say("the rest of the build is left; the same command without --only goes on")
    return {
        "bundle": str(options.out),
        "published": False,
        "parity": {
            name: {graph: figures.relative_l2 for graph, figures in records[name].parity.items()}
            for name in options.only
        },
    }


def _dry_run(
    options: argparse.Namespace, build_options: BuildOptions, plans: PlanRequest | None
) -> dict[str, Any]:
    """What the build would do and take, in words on stdout unless --json speaks."""
    from export.checkpoint.sources import NotDownloadedError
    from export.forecast import forecast_of

    told = [f"would build {options.out}: {build_options.precision}, opset {build_options.opset}"]
    if options.random_weights:
        places = {"weights": "random, of Stable Diffusion 1.5's size"}
    else:
        sources = _sources(options)
        places = {part: str(getattr(sources, part)) for part in _PARTS if part != "revision"}
    told += [f"{part}: {place}" for part, place in places.items()]
    source: ModelSource | None = None
    try:
        source = _source(options, told.append, download=False)
        told += [f"license: {line}" for line in source.licenses()]
    except NotDownloadedError as error:
        told.append(str(error))
    found = forecast_of(
        options.out,
        source,
        build_options,
        only=options.only,
        profiles=None if plans is None else plans.profiles,
        quantizations=len(options.quantizations),
    )
    if not options.json:
        print("\n".join([*told, *found.lines()]))
    return {"dry_run": True, "sources": places} | found.document()


def _display(say: Say) -> Display:
    """Progress of plans; sentences look like all others of this build."""
    return TerminalDisplay(sys.stderr) if sys.stderr.isatty() else JsonDisplay(sys.stderr, say)


if __name__ == "__main__":
    sys.exit(main())
