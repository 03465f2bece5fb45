"""Named tensors in files: safetensors, PyTorch's .bin, and either of them in shards.

Nothing here runs code from a file: .bin is read with torch's weights-only unpickler.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engines.errors import FaceDiffuserError
from export.checkpoint.layouts import bare_name, flattened, listed, without_averages

# In the order of preference: safetensors holds no code; whole files before shards.
_STEMS = ("model", "pytorch_model", "diffusion_pytorch_model")
# Where only a variant was saved, that of half precision; its index has had two spellings.
WEIGHT_FILE_NAMES = tuple(
    name
    for kind in ("safetensors", "bin")
    for ending in (
        f".{kind}", f".{kind}.index.json", f".fp16.{kind}", f".{kind}.index.fp16.json",
        f".fp16.{kind}.index.json",
    )
    for stem in _STEMS
    for name in (stem + ending,)
)  # fmt: skip
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_LFS = b"version https://git-lfs"


class CheckpointError(FaceDiffuserError):
    """A checkpoint is missing, damaged or not of the architecture its configuration says."""


@dataclass(frozen=True)
class WeightFiles:
    """One checkpoint: its tensors' names and the file that holds each.

    path: what messages call it (the file, or the index of a sharded one).
    files: tensor name, without what wrappers put into it and without averages (EMA) that lie beside
    the weights -> (file, stored name).
    """

    path: Path
    files: dict[str, tuple[Path, str]]

    @staticmethod
    def open(path: Path) -> WeightFiles:
        """Reads the names of a .safetensors, .bin or .index.json file, or of the best in a folder.

        Raises CheckpointError if there is none or if it cannot be read.
        """
        path = _weight_file_in(path) if path.is_dir() else path
        if ".index." in path.name and path.suffix == ".json":
            stored = _sharded_names(path)
        elif path.suffix in (".safetensors", *_PICKLED):
            stored = dict.fromkeys(_names_in(path), path)
        else:
            raise CheckpointError(
                f"{path}: expected a .safetensors, .bin or .index.json file, or a folder with one"
            )
        kept = without_averages(stored)
        files = {bare_name(name): (stored[name], name) for name in kept}
        if len(files) != len(kept):
            raise CheckpointError(
                f"{path} holds tensors both with and without a wrapper's prefix (module., "
                "_orig_mod.)"
            )
        return WeightFiles(path, files)

    def names(self, prefix: str = "") -> list[str]:
        """The tensors' names that start with the prefix, in the order of the file."""
        return [name for name in self.files if name.startswith(prefix)]

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors as they are stored, file by file, mapped rather than read."""
        by_file: defaultdict[Path, list[tuple[str, str]]] = defaultdict(list)
        for name in names:
            file, stored = self.files[name]
            by_file[file].append((name, stored))
        for file, pairs in by_file.items():
            yield from _read(file, pairs)

    def digests(self, names: Iterable[str]) -> list[str]:
        """The sha256 of each file that holds one of the tensors, sorted by file name."""
        files = {self.files[name][0] for name in names}
        return [sha256_of(file) for file in sorted(files, key=lambda file: file.name)]

    def paths(self) -> set[Path]:
        """Every file that holds a tensor."""
        return {file for file, _ in self.files.values()}


def sha256_of(path: Path) -> str:
    """The sha256 of a file, computed once per process for the same size and modification time."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256(path: Path, nbytes: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; the checkpoint cannot be read without"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = _not_fetched(path) or f"is not a readable JSON file: {error}"
        raise CheckpointError(f"{path} {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object, found {type(content).__name__}")
    return content


def _weight_file_in(folder: Path) -> Path:
    found = [folder / name for name in WEIGHT_FILE_NAMES if is_there(folder / name)]
    if not found:
        raise CheckpointError(f"{folder} has no weights; expected one of {WEIGHT_FILE_NAMES[:9]}")
    return found[0]


def is_there(path: Path) -> bool:
    """Whether there is a file, or a link that should lead to one."""
    return path.is_file() or path.is_symlink()


def _sharded_names(index: Path) -> dict[str, Path]:
    """Tensor name -> shard, checked against what the shards really hold."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map: it is not the index of a checkpoint")
    shards = {name: _shard(index, file) for name, file in weight_map.items()}
    held = {name: shard for shard in sorted(set(shards.values())) for name in _names_in(shard)}
    if held != shards:
        wrong = sorted(name for name in held | shards if held.get(name) != shards.get(name))
        raise CheckpointError(f"{index} does not agree with its shards about: {listed(wrong)}")
    return shards


def _shard(index: Path, file: object) -> Path:
    if not isinstance(file, str) or Path(file).name != file:
        raise CheckpointError(f"{index} names the shard {file!r}; expected a file name beside it")
    if not (index.parent / file).is_file():
        raise CheckpointError(f"{index.parent / file} is missing; {index} names it as a shard")
    return index.parent / file


def _names_in(path: Path) -> list[str]:
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"{path} is a link to {path.readlink()}, which is missing; copy or download it again"
        )
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if path.suffix in _PICKLED:
        return list(_load_bin(path))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _read(path: Path, pairs: list[tuple[str, str]]) -> Iterator[tuple[str, Tensor]]:
    if path.suffix in _PICKLED:
        tensors = _load_bin(path)
        yield from ((name, tensors[stored]) for name, stored in pairs)
        return
    try:
        with safe_open(path, framework="pt") as file:
            for name, stored in pairs:
                yield name, file.get_tensor(stored)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _load_bin(path: Path) -> dict[str, Tensor]:
    try:
        # Only the zip format, PyTorch's since 1.6, can be mapped.
        mapped = _is_zip(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise CheckpointError(_damaged(path, error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: expected a dict of tensors by name")
    if not all(isinstance(t, Tensor) for t in content.values()):
        content = flattened(content) or {}
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors or len(tensors) != len(content):
        raise CheckpointError(f"{path} is not a checkpoint: expected a dict of tensors by name")
    return tensors


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _not_fetched(path: Path) -> str | None:
    """What to say of a pointer that git-lfs left in a file's place."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(_LFS)) == _LFS
    except OSError:
        return None
    return (
        "is a pointer of git-lfs, not the file; fetch it with: git lfs pull" if is_pointer else None
    )


def _damaged(path: Path, error: Exception) -> str:
    if (pointer := _not_fetched(path)) is not None:
        return f"{path} {pointer}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"{path} cannot be read as weights: it is truncated, damaged or holds code "
        f"({type(error).__name__}: {reason}); copy or download it again"
    )
