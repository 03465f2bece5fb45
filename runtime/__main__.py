"""`python -m runtime PROMPT --reference PHOTO ...`: draw a picture from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from engines import commands
from engines.bundle.files import FileRefusedError, write_atomic
from engines.bundle.quantization import Quantization
from engines.cli.command import run_command, told
from engines.cli.parser import command_parser
from engines.errors import FaceDiffuserError, RequestError
from runtime import (
    FaceDiffuser,
    Fusion,
    GuidanceRule,
    HostPrecision,
    OutputType,
    Preset,
    Provider,
    Request,
    Scheduler,
    StepInfo,
    share_threads,
)
from runtime.inputs.photo import load_reference
from runtime.inputs.prompt import parts_of
from runtime.pictures.files import (
    check_writable,
    npy,
    npz,
    numbered,
    settings,
    takes_latents,
    toolkit_version,
)
from runtime.presets import Defaults

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Request)}
_BY_PRESET = {field.name for field in dataclasses.fields(Defaults)}


# What each of Request's fields means, as --help says it.
_HELP = {
    "negative_prompt": "what the picture should not show",
    "preset": "how much time a picture is worth; decides what is said to be by preset",
    "num_inference_steps": "steps from noise to picture; pndm wants 50, others do with fewer",
    "guidance_scale": "how closely to follow the prompt, above 1",
    "seed": "of the first picture, the next ones count on (default: drawn and told)",
    "num_images": "pictures to draw, 1 to 16",
    "height": "px, a multiple of 64 (default: the model's own)",
    "width": "px, a multiple of 64 (default: the model's own)",
    "alpha": "share of the steps after which people are fused into the scene",
    "beta": "share of the steps after which only people are enhanced",
    "start_merge_step": "last step of the scene alone, from 0; wins over alpha (default: by alpha)",
    "final_step": "last step of the fusion; wins over beta (default: by beta)",
    "reference_resolution": "px that photos are brought to first",
    "scheduler": "how a step moves from one noise level to the next",
    "guidance_every": "compute people's guidance whole each so many steps of the last stage",
    "guidance_until": "share of the trajectory after which the last stage has no guidance",
    "guidance_rule": "how people guide: the paper's rule, the released code's, or FastComposer's",
    "fusion": "how the two models are mixed, where both draw",
}
_KINDS: dict[str, type] = {
    "negative_prompt": str,
    "preset": Preset,
    "num_inference_steps": int,
    "guidance_scale": float,
    "seed": int,
    "num_images": int,
    "height": int,
    "width": int,
    "alpha": float,
    "beta": float,
    "start_merge_step": int,
    "final_step": int,
    "reference_resolution": int,
    "scheduler": Scheduler,
    "guidance_every": int,
    "guidance_until": float,
    "guidance_rule": GuidanceRule,
    "fusion": Fusion,
}
# The fields by what they are about, as --help lists them.
_GROUPS = {
    "the picture": ("negative_prompt", "num_images", "seed", "height", "width"),
    "quality against time": (
        "preset", "num_inference_steps", "scheduler", "guidance_every", "guidance_until",
    ),
    "the method": (
        "guidance_scale", "guidance_rule", "alpha", "beta", "start_merge_step", "final_step",
        "fusion", "reference_resolution",
    ),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Flags take their defaults from Request."""
    reading = "a man <|image|> reading in a park"
    flags = command_parser(
        commands.DRAW,
        __doc__,
        [reading, "--reference", "him.jpg", "--preset", "fast", "--out", "park.png"],
        [reading, "--reference", "him.jpg", "--num-images", 4, "--seed", 7],
    )
    flags.add_argument("--version", action="version", version=toolkit_version())
    flags.add_argument("prompt", help="write <|image|> after the word for each person")
    flags.add_argument(
        "--reference", action="append", default=[], type=Path, metavar="PHOTO",
        help="photo of a person; once per <|image|>, in the prompt's order",
    )  # fmt: skip
    for title, names in _GROUPS.items():
        group = flags.add_argument_group(title)
        for name in names:
            _add_field(group, name)
    group.add_argument(
        "--latents", type=Path, metavar="FILE",
        help=".npy with initial noise [images, 4, h, w] (default: drawn by the seed)",
    )  # fmt: skip
    _add_machine(flags.add_argument_group("where it is computed"))
    _add_output(flags.add_argument_group("what is written"))
    return flags


def _add_field(group: argparse._ArgumentGroup, name: str) -> None:
    """The flag of one of Request's fields, with its default."""
    kind, default = _KINDS[name], _DEFAULTS[name]
    if issubclass(kind, StrEnum):
        values = [choice.value for choice in kind]
        default = default and str(default)
        group.add_argument(_flag(name), choices=values, default=default, help=_help(name))
    else:
        metavar = "TEXT" if kind is str else "N"
        group.add_argument(
            _flag(name), type=kind, default=default, metavar=metavar, help=_help(name)
        )


def _add_machine(flags: argparse._ArgumentGroup) -> None:
    flags.add_argument(
        "--bundle", type=Path, default=Path("bundle"), metavar="FOLDER",
        help="folder that export.build made",
    )  # fmt: skip
    flags.add_argument(
        "--quantization", choices=[each.value for each in Quantization],
        help="take the U-Nets in 8 bits, of a bundle that has them (default: their own precision)",
    )  # fmt: skip
    flags.add_argument(
        "--provider", choices=[each.value for each in Provider],
        help="compute on this one or fail (default: the first that a GPU here runs, else the "
        "fastest measured on this processor)",
    )  # fmt: skip
    flags.add_argument(
        "--precision", choices=[each.value for each in HostPrecision],
        help="of the U-Nets on a CPU; bfloat16 is less exact (default: the faster measured here, "
        "float32 for small models)",
    )  # fmt: skip
    flags.add_argument(
        "--threads", type=int, metavar="N",
        help="processor cores to use, from 1 (default: the fastest number measured, else all)",
    )  # fmt: skip
    flags.add_argument(
        "--low-memory",
        action="store_true",
        help="hold only the engines that compute: one, and both U-Nets where a GPU fuses them",
    )


def _add_output(flags: argparse._ArgumentGroup) -> None:
    flags.add_argument(
        "--out", type=Path, default=Path("image.png"), metavar="FILE",
        help="picture to write (several get numbers); a name ending in .npy takes the latents",
    )  # fmt: skip
    flags.add_argument(
        "--maps", type=Path, metavar="FILE",
        help=".npz to write with what each fusion step went by: both saliency maps and the mask, "
        "[steps, images, h, w] (default: none)",
    )  # fmt: skip
    flags.add_argument(
        "--no-metadata", action="store_true",
        help="write pictures that tell neither bundle, seed and settings nor that a model made "
        "them",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return run_command(lambda: _draw(options), as_json=options.json, resumes=False)


def _draw(options: argparse.Namespace) -> dict[str, Any]:
    as_latents = takes_latents(options.out)
    _check_maps(options)
    names = set(_DEFAULTS) - {"prompt", "references", "latents", "output_type", "saliency"}
    request = Request(
        prompt=options.prompt,
        references=options.reference,
        latents=None if options.latents is None else _load_latents(options.latents),
        output_type=OutputType.LATENT if as_latents else OutputType.PIL,
        saliency=options.maps is not None,
        **{name: getattr(options, name) for name in names},
    )
    count = 1 if as_latents else request.num_images
    files = numbered(options.out, count)
    for file in files if options.maps is None else [*files, options.maps]:
        _check_out(file, options)
    # What is wrong with people is told before a bundle takes its time to open.
    parts_of(options.prompt, len(options.reference))
    photos = [load_reference(path) for path in options.reference]
    request = dataclasses.replace(request, references=photos)
    progress = _show_progress if sys.stderr is not None and sys.stderr.isatty() else None
    with FaceDiffuser.open(
        options.bundle,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        low_memory=options.low_memory,
        quantization=options.quantization,
    ) as face_diffuser:
        result = face_diffuser.generate(request, on_step=progress)
    if as_latents:
        contents = [npy(result.images)]
    else:
        contents = result.encoded(files, with_metadata=not options.no_metadata)
    if options.maps is not None:
        files, contents = [*files, options.maps], [*contents, npz(result.saliency or ())]
    _write(files, contents)
    for name, text in result.unread.items():
        words = f"warning: the model read {name} up to its last token and not: {text}"
        print(words, file=sys.stderr)
    for words in result.warnings:
        print(f"warning: {words}", file=sys.stderr)
    if not options.json:
        written, total_s = ", ".join(map(str, files)), result.timings_ms["total"] / 1e3
        host = face_diffuser.host_settings
        computed_by = result.provider if host is None else host.in_words()
        cost = f"{result.evaluations} U-Net evaluations in {total_s:.1f} s on {computed_by}"
        told(f"{written}: seed {result.seed}, {cost}")
    return {
        "files": [str(file) for file in files],
        "seeds": list(result.seeds),
        "provider": result.provider,
        "precision": result.precision,
        "bundle": result.bundle,
        "unread": dict(result.unread),
        "warnings": list(result.warnings),
        "evaluations": result.evaluations,
        "settings": settings(result.request),
        "declined": dict(face_diffuser.declined),
        "timings_ms": result.timings_ms,
    }


def _check_maps(options: argparse.Namespace) -> None:
    if options.maps is None:
        return
    if options.maps.suffix.lower() != ".npz":
        raise RequestError(f"--maps {options.maps} is several arrays; name it .npz")
    if options.fusion == Fusion.ADDITION:
        raise RequestError("--maps is of fusion by saliency, and addition has none; leave one out")


def _check_out(file: Path, options: argparse.Namespace) -> None:
    """Refuse a name before anything is drawn for it."""
    check_writable(file)
    for given in (*options.reference, options.latents):
        if given is not None and file.exists() and given.exists() and file.samefile(given):
            raise RequestError(f"--out {file} is what is drawn from; name another file")


def _write(files: Sequence[Path], contents: Sequence[bytes]) -> None:
    """Write what was drawn; where that fails after all, into a new folder for temporary files."""
    for number, (file, content) in enumerate(zip(files, contents, strict=True)):
        try:
            write_atomic(file, content)
        except (OSError, FileRefusedError) as error:
            rescue = Path(tempfile.mkdtemp(prefix="face-diffuser-"))
            for left, kept in zip(files[number:], contents[number:], strict=True):
                write_atomic(rescue / left.name, kept)
            raise FaceDiffuserError(
                f"{file} could not be written ({error}); what was drawn is kept in {rescue}"
            ) from error


def _help(name: str) -> str:
    """A field's help, with its default where it has one."""
    default = "by preset" if name in _BY_PRESET else _DEFAULTS[name]
    return _HELP[name] + ("" if default is None else f" (default: {str(default) or 'nothing'})")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _load_latents(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            latents = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise RequestError(f"{path} is not a readable .npy array: {error}") from error
    if not isinstance(latents, np.ndarray):
        raise RequestError(f"{path} holds several arrays; give a .npy with one")
    return latents


def _show_progress(info: StepInfo) -> None:
    done = info.step + 1
    bar = "#" * (30 * done // info.num_steps)
    end = "\n" if done == info.num_steps else ""
    text = f"\r{info.stage.value:<8} {bar:<30} {done}/{info.num_steps}"
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    share_threads()
    sys.exit(main())
