"""kernels.json: everything a launcher needs to know about the cubins of a bundle.

    {"schema_version": 3, "element_type": "float16", "digest": "...", "compiler": "triton 3.9.0",
     "kernels": {"guided_step": {
        "entry": "guided_step", "threads": 128, "constants": {"BLOCK": 1024},
        "arguments": [{"name": "prediction", "type": "float16*", "multiple_of": 16}, ...],
        "cubins": {"90": {"sha256": "...", "shared_nbytes": 4096, "toolkit": "12.9"}, ...}}}}

Arguments are in launch order and complete. A cubin lies beside the JSON, named by `cubin_path`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines import commands
from engines.bundle.records import Count, Nbytes, Sha256, document_of, read
from engines.errors import BundleCorruptError, BundleNotFoundError, BundleSchemaError

FILE_NAME = "kernels.json"
# 1 did not say of which CUDA toolkit a cubin is, 2 kept nothing but noise.
SCHEMA_VERSION = 3

# A pointer no caller fills: the compiler appends two for scratch memory, which no kernel here uses.
SCRATCH_TYPE = "scratch*"
_NBYTES = {"int32": 4}
_POINTER_NBYTES = 8


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One kernel parameter; its value is a multiple of `multiple_of` (for pointers, in bytes)."""

    name: str
    type: str
    multiple_of: Count = 1

    def __post_init__(self) -> None:
        if not self.is_pointer and self.type not in _NBYTES:
            raise ValueError(f"argument {self.name} has an unknown type, {self.type}")

    @property
    def is_pointer(self) -> bool:
        return self.type.endswith("*")

    @property
    def nbytes(self) -> int:
        return _POINTER_NBYTES if self.is_pointer else _NBYTES[self.type]


@dataclass(frozen=True, kw_only=True)
class Cubin:
    """One compiled kernel for one GPU architecture.

    toolkit: the CUDA version that its assembler marked it with, such as 12.9. Drivers load what a
    toolkit of their own major version or an older one built.
    """

    sha256: Sha256
    shared_nbytes: Nbytes
    toolkit: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"\d+\.\d+", self.toolkit) is None:
            raise ValueError(f"{self.toolkit} is no version of a CUDA toolkit, such as 12.9")

    @property
    def cuda_major(self) -> int:
        return int(self.toolkit.split(".")[0])


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """How a kernel is launched, whatever the architecture; `cubins` by architecture, such as 90."""

    entry: str
    threads: Count
    constants: Mapping[str, int]
    arguments: tuple[Argument, ...]
    cubins: Mapping[int, Cubin] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class KernelManifest:
    """The content of kernels.json; `digest` identifies what the cubins were built from."""

    element_type: str
    digest: str
    compiler: str
    kernels: Mapping[str, Kernel]

    @property
    def architectures(self) -> tuple[int, ...]:
        """The GPU architectures for which every kernel has a cubin, ascending."""
        sets = [set(kernel.cubins) for kernel in self.kernels.values()]
        return tuple(sorted(set.intersection(*sets))) if sets else ()

    def to_json(self) -> str:
        """The file's text; equal manifests give equal text."""
        content = {"schema_version": SCHEMA_VERSION, **document_of(self)}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> KernelManifest:
        """Read and check folder/kernels.json.

        Raises BundleNotFoundError, BundleSchemaError (another version) or BundleCorruptError.
        """
        path, fix = folder / FILE_NAME, commands.rebuilt(folder.parent)
        if not path.is_file():
            raise BundleNotFoundError(f"there is no {path}; build the kernels with", fix=fix)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.pop("schema_version")
            if version == SCHEMA_VERSION:
                return read(cls, content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleCorruptError(
                f"{path} is damaged ({error}); build the kernels again with", fix=fix
            ) from error
        raise BundleSchemaError(
            f"{path} has schema version {version}, expected {SCHEMA_VERSION}; build the kernels "
            "again with",
            fix=fix,
        )


def cubin_path(folder: Path, kernel: str, architecture: int) -> Path:
    """Where a kernel's cubin for one architecture lies."""
    return folder / f"{kernel}.sm_{architecture}.cubin"
