"""One file of a checkpoint: tensors in safetensors or PyTorch's .bin, or JSON; read as data alone.

Nothing here runs code from a file: .bin is read with torch's weights-only unpickler.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engines.blame import raised_within
from engines.errors import FaceDiffuserError
from export.checkpoint.layouts import flattened

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_LFS = b"version https://git-lfs"
# What reads checkpoints, and what those libraries call.
_LIBRARIES = frozenset(
    {
        *("torch", "diffusers", "transformers", "peft", "accelerate", "tokenizers", "safetensors"),
        *("numpy", "regex", "packaging", "filelock", "tqdm", "yaml", "fsspec", "typer"),
        *("huggingface_hub", "hf_xet", "httpx", "httpcore", "anyio", "sniffio", "h11", "h2"),
        *("hpack", "socksio", "certifi", "idna", "requests", "urllib3", "charset_normalizer"),
    }
)


class CheckpointError(FaceDiffuserError):
    """A checkpoint is missing, damaged or not of the architecture its configuration says."""


@contextmanager
def refusing(sentence: Callable[[Exception], str]) -> Iterator[None]:
    """CheckpointError with this sentence for whatever the libraries that read checkpoints raise.

    They check in many ways and have no common class of errors. What a signal handler of the caller
    raises meanwhile (a time limit, for example) passes as it is.
    """
    try:
        yield
    except Exception as error:
        if not raised_within(error, _LIBRARIES):
            raise
        raise CheckpointError(sentence(error)) from error


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
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no file; the checkpoint cannot be read without one")
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


def is_there(path: Path) -> bool:
    """Whether there is a file, or a link that should lead to one."""
    return path.is_file() or path.is_symlink()


def names_in(path: Path) -> list[str]:
    """The names of a file's tensors; CheckpointError where there are none to read."""
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"{path} is a link to {path.readlink()}, which is missing; copy or download it again"
        )
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if path.suffix in PICKLED:
        return list(_load_bin(path))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def read(path: Path, pairs: list[tuple[str, str]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by the first name of each pair, stored by the second; mapped rather than read."""
    if path.suffix in PICKLED:
        tensors = _load_bin(path)
        yield from ((name, tensors[stored]) for name, stored in pairs)
        return
    try:
        with safe_open(path, framework="pt") as file:
            for name, stored in pairs:
                yield name, file.get_tensor(stored)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def headers(
    path: Path, pairs: list[tuple[str, str]]
) -> Iterator[tuple[str, list[int], str | None]]:
    """Name, shape and what is wrong with the type (None: floating-point numbers), of each pair."""
    if path.suffix in PICKLED:
        for name, tensor in read(path, pairs):
            plain = tensor.is_floating_point() and tensor.layout is torch.strided
            yield name, list(tensor.shape), None if plain else f"{tensor.dtype} {tensor.layout}"
        return
    try:
        with safe_open(path, framework="pt") as file:
            for name, stored in pairs:
                header = file.get_slice(stored)
                kind = header.get_dtype()
                yield name, list(header.get_shape()), None if "F" in kind else kind
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _load_bin(path: Path) -> dict[str, Tensor]:
    with refusing(lambda error: _damaged(path, error)):
        # Only the zip format, PyTorch's since 1.6, can be mapped.
        mapped = _is_zip(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: expected a dict of tensors by name")
    if not all(isinstance(t, Tensor) for t in content.values()):
        try:
            content = flattened(content) or {}
        except RecursionError:  # a dictionary that holds itself
            content = {}
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
