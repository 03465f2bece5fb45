"""Named tensors in files: safetensors, PyTorch's .bin, and either of them in shards."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from export.checkpoint.layouts import bare_names, listed, without_averages
from export.checkpoint.tensor_files import (
    PICKLED,
    CheckpointError,
    headers,
    is_there,
    names_in,
    read,
    read_json,
    sha256_of,
)

__all__ = ["CheckpointError", "WeightFiles", "read_json", "sha256_of"]

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
# Variants of any other name, and shards: model.non_ema.safetensors, model-00001-of-00002.bin ...
_VARIANT = re.compile(
    rf"(?:{'|'.join(_STEMS)})(?:[.-][\w-]+)*\.(?:safetensors|bin)(?:\.index(?:\.\w+)?\.json)?"
)


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
        if path.is_dir():
            found = weight_file_in(path)
            if found is None:
                names = ", ".join(WEIGHT_FILE_NAMES[:6])
                raise CheckpointError(f"{path} has no weights; expected one of {names} ...")
            path = found
        if ".index." in path.name and path.suffix == ".json":
            stored = _sharded_names(path)
        elif path.suffix in (".safetensors", *PICKLED):
            stored = dict.fromkeys(names_in(path), path)
        else:
            raise CheckpointError(
                f"{path}: expected a .safetensors, .bin or .index.json file, or a folder with one"
            )
        kept = without_averages(stored)
        bare = bare_names(kept)
        files = {bare[name]: (stored[name], name) for name in kept}
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
        for file, pairs in self._by_file(names).items():
            yield from read(file, pairs)

    def shapes(self, names: Iterable[str]) -> Iterator[tuple[str, list[int], str | None]]:
        """Name, shape, and what is wrong with the type (None: floating-point numbers), by file.

        Reads no weights, but for the headers of safetensors and the mapping of .bin files.
        """
        for file, pairs in self._by_file(names).items():
            yield from headers(file, pairs)

    def _by_file(self, names: Iterable[str]) -> dict[Path, list[tuple[str, str]]]:
        """Each file that holds some of the tensors: their names, and what it calls them."""
        by_file: defaultdict[Path, list[tuple[str, str]]] = defaultdict(list)
        for name in names:
            file, stored = self.files[name]
            by_file[file].append((name, stored))
        return by_file

    def digests(self, names: Iterable[str]) -> list[str]:
        """The sha256 of each file that holds one of the tensors, sorted by file name."""
        files = {self.files[name][0] for name in names}
        return [sha256_of(file) for file in sorted(files, key=lambda file: file.name)]

    def paths(self) -> set[Path]:
        """Every file that holds a tensor."""
        return {file for file, _ in self.files.values()}


def weight_file_in(folder: Path) -> Path | None:
    """The file or index of a folder's weights, None where there is none.

    A plain name is preferred to a variant's, safetensors to .bin, whole files to shards. Raises
    CheckpointError where there are several variants of other names, or shards without an index.
    """
    for name in WEIGHT_FILE_NAMES:
        if is_there(folder / name):
            return folder / name
    if not folder.is_dir():
        return None
    found = sorted(path for path in folder.iterdir() if _VARIANT.fullmatch(path.name))
    whole = [path for path in found if "-of-" not in path.name]
    for kind in ("safetensors", "bin"):
        same = [path for path in whole if kind in path.name]
        if len(same) == 1:
            return same[0]
        if same:
            raise CheckpointError(
                f"{folder} has several variants of its weights, {listed([p.name for p in same])}; "
                "name the file itself"
            )
    if found:
        raise CheckpointError(
            f"{folder} has shards ({found[0].name}) without their index (*.index.json); copy or "
            "download it too"
        )
    return None


def _sharded_names(index: Path) -> dict[str, Path]:
    """Tensor name -> shard, checked against what the shards really hold."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map: it is not the index of a checkpoint")
    shards = {name: _shard(index, file) for name, file in weight_map.items()}
    held = {name: shard for shard in sorted(set(shards.values())) for name in names_in(shard)}
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
