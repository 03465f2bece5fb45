"""Where a model's parts come from: local paths, or repositories of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from export import shipped
from export.checkpoint.tensor_files import refusing
from export.checkpoint.weight_files import WEIGHT_FILE_NAMES, CheckpointError, weight_file_in
from export.options import Sources

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")

_COMMIT = re.compile(r"[0-9a-f]{40}")

_LICENSES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "CreativeML OpenRAIL-M (its use-based "
    "restrictions apply)",
    "CodeGoat24/Face-diffuser": "the released code's repository has an MIT license text, "
    "its README says: non-commercial academic use",
    "openai/clip-vit-large-patch14": "MIT",
}

BASE_FILES = (
    "unet/config.json",
    "text_encoder/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*",
)


class NotDownloadedError(CheckpointError):
    """A repository of the hub is not here, and nobody asked to download it."""


def base_folder(source: str, revision: str | None, *, download: bool = True) -> Path:
    """The local folder of a Stable Diffusion base, downloaded as far as it is needed.

    download: False raises NotDownloadedError instead, here and in the functions below.
    """
    weights = [f"vae/{name}" for name in _patterns()]
    return _local(source, revision, "--base", BASE_FILES, weights, download=download)


def image_encoder_config(source: str, revision: str | None, *, download: bool = True) -> Path:
    """The configuration file of an image encoder."""
    path = _local(source, revision, "--image-encoder", ("config.json",), [], download=download)
    return path / "config.json" if path.is_dir() else path


def checkpoint_path(source: str, revision: str | None, role: str, *, download: bool = True) -> Path:
    """The file or folder that holds the weights of a role, TDM or SDM.

    Looks in the folder itself, then in its folder of the role's name, as the released repository
    has it, and for a TDM in `unet`, as a diffusers pipeline has it.
    """
    inner = [role, "unet"] if role == "TDM" else [role]
    folders = [f"{folder}/" for folder in inner] + [""]
    weights = [folder + name for folder in folders for name in _patterns()]
    configs = tuple(f"{folder}config.json" for folder in folders)
    path = _local(source, revision, f"--{role.lower()}", configs, weights, download=download)
    if not path.is_dir():
        return path
    for folder in (path, *(path / name for name in inner)):
        if weight_file_in(folder) is not None:
            return folder
    looked_in = ", ".join(str(folder) for folder in (path, *(path / name for name in inner)))
    raise CheckpointError(
        f"no weights for the {role}: looked in {looked_in} for "
        f"{', '.join(WEIGHT_FILE_NAMES[:6])} ...; "
        f"name the right folder or file with --{role.lower()}"
    )


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a hub id was resolved to; pinned: it named the commit, which nobody can change."""

    role: str
    repository: str
    commit: str
    pinned: bool

    def in_words(self) -> str:
        flag = f"--{self.role.replace('_', '-')}"
        return (
            f"{self.role}: {self.repository} is at commit {self.commit} today; to get the same "
            f"again, type {flag} {self.repository}@{self.commit}"
        )


def commits_of(sources: Sources, places: Mapping[str, Path]) -> list[Commit]:
    """The commit of each source that is a hub id; local ones have none.

    places: by role, where the hub's cache has a file or folder of it: below snapshots/<commit>.
    """
    commits = []
    for role, place in places.items():
        source: str = getattr(sources, role)
        repository, _, revision = source.partition("@")
        found = next((name for name in reversed(place.parts) if _COMMIT.fullmatch(name)), None)
        if found and not Path(source).expanduser().exists():
            pinned = _COMMIT.fullmatch(revision or sources.revision or "") is not None
            commits.append(Commit(role=role, repository=repository, commit=found, pinned=pinned))
    return commits


def license_line(source: str) -> str:
    """What is known of a source's license, as a line of text."""
    path = Path(source)
    if path.exists():
        if place := shipped.public_place(path):
            return f"{place}: MIT, part of this repository"
        return f"{source}: unknown: local files, see their origin"
    known = _LICENSES.get(source.partition("@")[0], "see its page at https://huggingface.co")
    return f"{source}: {known}"


def _patterns() -> list[str]:
    """The weight files' names, with the shards' among them."""
    shards = [f"*-of-*.{kind}" for kind in ("safetensors", "bin")]
    return [*WEIGHT_FILE_NAMES, *shards]


def _local(
    source: str,
    revision: str | None,
    flag: str,
    files: tuple[str, ...],
    weights: list[str],
    *,
    download: bool,
) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(source) or source.endswith((".bin", ".safetensors", ".json")):
        raise CheckpointError(
            f"{source} is neither a file or folder nor a hub id; "
            f"name a local path or owner/repository with {flag}"
        )
    repository, _, own_revision = source.partition("@")
    if not download and not _is_here(repository, own_revision or revision):
        raise NotDownloadedError(f"{source} is not here; the build downloads it from the hub")
    return _downloaded(repository, own_revision or revision, flag, files, weights)


def _is_here(repository: str, revision: str | None) -> bool:
    """Whether the hub's cache has some files of a repository."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(repository, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def _downloaded(
    repository: str, revision: str | None, flag: str, files: tuple[str, ...], weights: list[str]
) -> Path:
    """The snapshot's folder, with safetensors where there are any, else with .bin files."""
    from huggingface_hub import snapshot_download

    safe = [name for name in weights if ".safetensors" in name]
    pickled = [name for name in weights if name not in safe]
    fetch = partial(snapshot_download, repository, revision=revision)
    with refusing(
        lambda error: (
            f"{repository} could not be fetched from the Hugging Face hub: {error}\n"
            f"Download it where there is a network, with: hf download {repository}\n"
            f"or name a local copy with {flag} FOLDER"
        )
    ):
        folder = Path(fetch(allow_patterns=[*files, *safe]))
        if weights and not any(any(folder.glob(pattern)) for pattern in safe):
            folder = Path(fetch(allow_patterns=[*files, *pickled]))
    return folder
