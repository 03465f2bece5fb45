"""`python -m runtime PROMPT --reference PHOTO ...`: draw a picture from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engines import commands
from engines.bundle.files import write_atomic
from engines.cli.command import run_command
from engines.errors import RequestError
from runtime import (
    FaceDiffuser,
    Fusion,
    GuidanceRule,
    OutputType,
    Provider,
    Request,
    Scheduler,
    StepInfo,
)

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Request)}


def parser() -> argparse.ArgumentParser:
    """Flags take their defaults from Request."""
    flags = argparse.ArgumentParser(prog=commands.typed(commands.DRAW), description=__doc__)
    flags.add_argument("prompt", help="write <|image|> after the word for each person")
    flags.add_argument(
        "--reference", action="append", default=[], type=Path, metavar="PHOTO",
        help="photo of a person; once per <|image|>, in the prompt's order",
    )  # fmt: skip
    flags.add_argument("--bundle", type=Path, default=Path("bundle"))
    flags.add_argument(
        "--out", type=Path, default=Path("image.png"),
        help="picture to write (several get numbers); a name ending in .npy takes the latents",
    )  # fmt: skip
    for name, kind in (
        ("negative_prompt", str), ("num_inference_steps", int), ("guidance_scale", float),
        ("seed", int), ("num_images", int), ("height", int), ("width", int), ("alpha", float),
        ("beta", float), ("start_merge_step", int), ("final_step", int),
        ("reference_resolution", int),
    ):  # fmt: skip
        flags.add_argument(_flag(name), type=kind, default=_DEFAULTS[name])
    for name, choices in (
        ("scheduler", Scheduler), ("guidance_rule", GuidanceRule), ("fusion", Fusion),
    ):  # fmt: skip
        values = [choice.value for choice in choices]
        flags.add_argument(_flag(name), choices=values, default=str(_DEFAULTS[name]))
    flags.add_argument("--latents", type=Path, help=".npy with initial noise [images, 4, h, w]")
    flags.add_argument(
        "--provider", choices=[each.value for each in Provider],
        help="compute on this one or fail (default: the first of these that can run here)",
    )  # fmt: skip
    flags.add_argument("--threads", type=int, help="processor cores to use (default: all)")
    flags.add_argument(
        "--low-memory", action="store_true", help="hold one engine in memory at a time"
    )
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return run_command(lambda: _draw(options), as_json=options.json)


def _draw(options: argparse.Namespace) -> dict[str, Any]:
    as_latents = options.out.suffix == ".npy"
    names = set(_DEFAULTS) - {"prompt", "references", "latents", "output_type", "saliency"}
    request = Request(
        prompt=options.prompt,
        references=options.reference,
        latents=None if options.latents is None else _load_latents(options.latents),
        output_type=OutputType.LATENT if as_latents else OutputType.PIL,
        **{name: getattr(options, name) for name in names},
    )
    progress = _show_progress if sys.stderr.isatty() else None
    with FaceDiffuser.open(
        options.bundle,
        provider=options.provider,
        threads=options.threads,
        low_memory=options.low_memory,
    ) as face_diffuser:
        result = face_diffuser.generate(request, on_step=progress)
    if as_latents:
        files = [options.out]
        write_atomic(options.out, _npy(result.images))
    else:
        files = [
            _numbered(options.out, image, len(result.images)) for image in range(len(result.images))
        ]
        for file, picture in zip(files, result.images, strict=True):
            write_atomic(file, _encoded(picture, file))
    if not options.json:
        written, total_s = ", ".join(map(str, files)), result.timings_ms["total"] / 1e3
        print(f"{written}: seed {result.seed}, {total_s:.1f} s on {result.provider}")
    return {
        "files": [str(file) for file in files],
        "seeds": list(result.seeds),
        "provider": result.provider,
        "declined": dict(face_diffuser.declined),
        "timings_ms": result.timings_ms,
    }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _load_latents(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} is not a readable .npy array: {error}") from error


def _npy(latents: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, latents)
    return stream.getvalue()


def _encoded(picture: Any, path: Path) -> bytes:
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise RequestError(f"cannot write pictures as {path.suffix or path.name}; name it .png")
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def _numbered(path: Path, image: int, count: int) -> Path:
    return path if count == 1 else path.with_stem(f"{path.stem}-{image}")


def _show_progress(info: StepInfo) -> None:
    done = info.step + 1
    bar = "#" * (30 * done // info.num_steps)
    end = "\n" if done == info.num_steps else ""
    text = f"\r{info.stage.value:<8} {bar:<30} {done}/{info.num_steps}"
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
