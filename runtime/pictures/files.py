"""Pictures as files: names and formats checked before anything is drawn, and what they say of
themselves."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engines.bundle.files import check_replaceable
from engines.bundle.quantization import Quantization
from engines.engine import HostPrecision
from engines.errors import RequestError
from runtime.request import Request

if TYPE_CHECKING:
    from runtime.result import StepSaliency

# Settings that a picture may tell: nothing of who is in it or of what was asked for in words.
_TOLD = (
    "preset", "num_inference_steps", "guidance_scale", "num_images", "height", "width",
    "scheduler", "alpha", "beta", "start_merge_step", "final_step", "guidance_rule",
    "guidance_every", "guidance_until", "fusion", "reference_resolution",
)  # fmt: skip
# IPTC's digital source type of pictures that a model has made (photo metadata standard 2023.1).
_AI_MARK = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def toolkit_version() -> str:
    """The installed version of this toolkit."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("face-diffuser")
    except PackageNotFoundError:
        return "unknown"


def takes_latents(path: Path) -> bool:
    """Whether a name asks for latents, not for a picture."""
    return path.suffix.lower() == ".npy"


def numbered(path: Path, count: int) -> list[Path]:
    """The files of so many pictures: the only one's is the path itself."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{image}") for image in range(count)]


def check_writable(path: Path) -> None:
    """Raise RequestError or FileRefusedError unless a picture can be written at a path."""
    if path.is_dir():
        raise RequestError(f"{path} is a folder; name a file in it: {path / 'image.png'}")
    if path.suffix.lower() not in (".npy", ".npz"):
        encoded(Image.new("RGB", (64, 64)), path)
    check_replaceable(path)
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise RequestError(f"{path} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(f"{path} cannot be written: {folder} is read-only for this user")


def settings(request: Request) -> dict[str, Any]:
    """What a request was drawn with, preset and defaults resolved; nothing of its words."""
    told = {name: getattr(request, name) for name in _TOLD}
    return {name: value for name, value in told.items() if value is not None}


def metadata(
    request: Request,
    *,
    seed: int,
    provider: str,
    bundle: str,
    quantization: Quantization | None = None,
    precision: HostPrecision | None = None,
) -> dict[str, Any]:
    """How a picture came about: bundle, seed and settings, without prompt, photos or names."""
    return {
        "bundle": bundle,
        "seed": seed,
        "provider": provider,
        "quantization": quantization,
        "precision": precision,
        "settings": settings(request),
    }


def encoded(picture: Image.Image, path: Path, about: dict[str, Any] | None = None) -> bytes:
    """A picture in the format that a name asks for. Raises RequestError for an unknown one.

    about: what it says of itself, beside the mark that a model made it; None for neither (PNG; the
    mark alone in JPEG and WebP, and nothing in other formats).
    """
    Image.init()
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        ending = path.suffix or f"{path.name!r} without an ending"
        raise RequestError(f"cannot write pictures as {ending}; name it .png")
    words: dict[str, Any] = {}
    if about is not None and kind == "PNG":
        info = PngInfo()
        info.add_text("Software", f"face-diffuser {toolkit_version()}")
        info.add_text("face-diffuser", json.dumps(about, default=str))
        info.add_itxt("XML:com.adobe.xmp", _AI_MARK)
        words["pnginfo"] = info
    elif about is not None and kind in ("JPEG", "WEBP"):
        words["xmp"] = _AI_MARK.encode()
    stream = io.BytesIO()
    try:
        picture.save(stream, kind, **words)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(
            f"cannot write pictures as {path.suffix} ({error}); name it .png"
        ) from error
    return stream.getvalue()


def npz(steps: Iterable[StepSaliency]) -> bytes:
    """Saliency as a .npz file: step, timestep [steps]; tdm, sdm, mask [steps, images, h, w]."""
    kept = list(steps)
    stream = io.BytesIO()
    np.savez(
        stream,
        step=[each.step for each in kept],
        timestep=[each.timestep for each in kept],
        tdm=[each.saliency.tdm for each in kept],
        sdm=[each.saliency.sdm for each in kept],
        mask=[each.saliency.mask for each in kept],
    )
    return stream.getvalue()


def npy(latents: Any) -> bytes:
    """An array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, latents)
    return stream.getvalue()
