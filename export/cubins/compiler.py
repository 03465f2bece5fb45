"""Compile every kernel for one GPU architecture, in a process of its own.

    python -m export.cubins.compiler FOLDER ELEMENT_TYPE ARCHITECTURE

A separate process, because the compiler ends the whole process where an architecture is beyond it,
and because it reads its environment as it starts (see export.cubins.build). Writes the cubins into
FOLDER and prints one JSON object: each kernel as in kernels.json.
"""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engines.bundle.files import sha256_of_file, write_atomic
from engines.bundle.kernel_manifest import SCRATCH_TYPE, Argument, Cubin, Kernel, cubin_path
from kernels.variants import VARIANTS, Variant, argument_multiple, argument_type

WARP_THREADS = 32
# What a launch may ask for without opting in to more.
MAX_SHARED_NBYTES = 48 * 1024

_TRITON_TYPES = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "int32": "i32",
    "uint8": "u8",
}


class CompilerError(RuntimeError):
    """A kernel came out of the compiler in a form that must not be shipped."""


def main(folder: Path, element_type: str, architecture: int) -> None:
    """Compile all variants and print their records."""
    records = {v.name: compiled(v, folder, element_type, architecture) for v in VARIANTS}
    print(json.dumps({name: asdict(record) for name, record in records.items()}))


def compiled(variant: Variant, folder: Path, element_type: str, architecture: int) -> Kernel:
    """Write one cubin; raises CompilerError where it spills or needs scratch or too much memory."""
    arguments = arguments_of(variant, element_type)
    result = triton.compile(
        source_of(variant, arguments),
        target=GPUTarget("cuda", architecture, WARP_THREADS),
        # No contraction of a*b+c: both models' saliency must round alike, or exact ties break.
        options={"num_warps": variant.warps, "num_stages": 1, "enable_fp_fusion": False},
    )
    metadata = result.metadata
    path = cubin_path(folder, variant.name, architecture)
    write_atomic(path, result.asm["cubin"])
    scratch_nbytes = metadata.global_scratch_size + metadata.profile_scratch_size
    if scratch_nbytes or metadata.shared > MAX_SHARED_NBYTES or metadata.num_ctas != 1:
        raise CompilerError(
            f"{path.name} needs {scratch_nbytes} B scratch, {metadata.shared} B shared"
        )
    refuse_local_memory(path)
    return Kernel(
        entry=metadata.name,
        threads=WARP_THREADS * metadata.num_warps,
        constants=dict(variant.constants),
        arguments=arguments,
        cubins={
            architecture: Cubin(
                sha256=sha256_of_file(path),
                shared_nbytes=metadata.shared,
                toolkit=toolkit_of(path),
            )
        },
    )


def arguments_of(variant: Variant, element_type: str) -> tuple[Argument, ...]:
    """The parameters in launch order, with the two scratch pointers that Triton always appends."""
    names = [name for name in variant.kernel.arg_names if name not in variant.constants]
    visible = [
        Argument(
            name=name,
            type=argument_type(name).replace("element", element_type),
            multiple_of=argument_multiple(name),
        )
        for name in names
    ]
    hidden = [Argument(name=n, type=SCRATCH_TYPE) for n in ("global_scratch", "profile_scratch")]
    return (*visible, *hidden)


def source_of(variant: Variant, arguments: tuple[Argument, ...]) -> Any:
    """What Triton compiles: types, constants and promised multiples, nothing implicit."""
    by_name = {argument.name: argument for argument in arguments}
    signature, promises = {}, {}
    for index, name in enumerate(variant.kernel.arg_names):
        if name in variant.constants:
            signature[name] = "constexpr"
            continue
        argument = by_name[name]
        signature[name] = argument.is_pointer * "*" + _TRITON_TYPES[argument.type.rstrip("*")]
        if argument.multiple_of > 1:
            promises[(index,)] = [["tt.divisibility", argument.multiple_of]]
    return ASTSource(
        fn=variant.kernel, signature=signature, constexprs=dict(variant.constants), attrs=promises
    )


def toolkit_of(cubin: Path) -> str:
    """The CUDA version in a cubin's own header, as cuobjdump reads it: 12.9 (or 129, as of old)."""
    found = re.search(r"toolkit=(?:(\d+)\.(\d+)|(\d+)(\d)\b)", _cuobjdump("-elf", cubin))
    if found is None:
        raise CompilerError(f"{cubin.name} does not say which CUDA toolkit built it")
    return ".".join(part for part in found.groups() if part is not None)


def refuse_local_memory(cubin: Path) -> None:
    """Raise CompilerError where registers spill or a stack is used, as cuobjdump reports it."""
    usage = _cuobjdump("-res-usage", cubin)
    if "STACK:0 " not in usage or "LOCAL:0 " not in usage:
        raise CompilerError(f"{cubin.name} spills registers or uses a stack: {usage.strip()}")


def _cuobjdump(what: str, cubin: Path) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run(
        [str(tool), what, str(cubin)], capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
