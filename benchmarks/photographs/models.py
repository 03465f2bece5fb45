"""The networks that judge photographs: where each comes from, and under which license."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.bundle.files import sha256_of_file
from engines.errors import FaceDiffuserError


class JudgeError(FaceDiffuserError):
    """A network that is to judge pictures is not there, or not what was expected."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network's default place, its file there, and the terms it is under.

    file: None of a whole repository. license: as its authors state it; the user's own network has
    the user's.
    """

    hub_id: str
    file: str | None
    license: str


DETECTOR = Source(
    hub_id="opencv/face_detection_yunet",
    file="face_detection_yunet_2023mar.onnx",
    license="MIT (OpenCV Zoo, YuNet)",
)
FACE_MODEL = Source(
    hub_id="opencv/face_recognition_sface",
    file="face_recognition_sface_2021dec.onnx",
    license="Apache 2.0 (OpenCV Zoo, SFace)",
)
CLIP = Source(
    hub_id="openai/clip-vit-large-patch14",
    file=None,
    license="MIT for OpenAI's code and weights as published in openai/CLIP; see the model card, "
    "which limits its intended use to research",
)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network's files here, and what is said of them. digest: of the file, None of a folder."""

    path: Path
    told: str
    digest: str | None


def opened(place: str | None, default: Source) -> Opened:
    """What was named, a path or a hub id, else the default from the hub.

    Of a hub id other than the default, the default's file is taken. Raises JudgeError.
    """
    if place is not None and Path(place).exists():
        return _told(Path(place), place, "the user's own, under the user's terms")
    hub_id = place or default.hub_id
    license = default.license if hub_id == default.hub_id else f"see the card of {hub_id}"
    try:
        from huggingface_hub import hf_hub_download, snapshot_download

        if default.file is None:
            path = Path(snapshot_download(hub_id))
        else:
            path = Path(hf_hub_download(hub_id, default.file))
    except Exception as error:
        # The library raises its own errors, its client's and the system's.
        raise JudgeError(
            f"there is no {hub_id} here, and it could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0][:200]}); name a file "
            "that is here, or fetch it where there is a network with",
            fix=f"hf download {hub_id} {default.file or ''}".strip(),
        ) from error
    return _told(path, hub_id, license)


def _told(path: Path, name: str, license: str) -> Opened:
    digest = sha256_of_file(path) if path.is_file() else None
    return Opened(path=path, told=f"{name}: {license}", digest=digest)
