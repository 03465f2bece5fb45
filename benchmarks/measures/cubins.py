"""The compiled kernels by themselves: registers, spills, vector loads, instructions, bytes moved.

Read from the cubins with the tools that ship with Triton; nothing runs, so no GPU is needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import triton

from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options
from benchmarks.harness.record import header_of, table_of
from benchmarks.schema.cubins import CubinFacts, CubinRow, CubinsRecord
from engines.bundle.kernel_manifest import KernelManifest, cubin_path
from export.cubins.build import ARCHITECTURES, build_cubins

QUICK_ARCHITECTURES = (90,)
PRECISION = "fp16"

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# "/*0120*/  @!P0 LDG.E.128 R4, ..." -> "LDG.E.128"
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


def facts_of(cubin: Path) -> CubinFacts:
    """Disassemble one cubin."""
    usage = output_of("cuobjdump", "-res-usage", str(cubin))
    counts = {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", usage)}
    names = _INSTRUCTION.findall(output_of("cuobjdump", "-sass", str(cubin)))
    loads = [name for name in names if name.startswith("LDG")]
    stores = [name for name in names if name.startswith("STG")]
    return CubinFacts(
        registers=counts["REG"],
        spilled_nbytes=counts["STACK"] + counts["LOCAL"],
        loads=len(loads),
        loads_of_16_nbytes=sum("128" in name for name in loads),
        stores=len(stores),
        stores_of_16_nbytes=sum("128" in name for name in stores),
        instructions=sum(name != "NOP" for name in names),
        nbytes=cubin.stat().st_size,
    )


def output_of(tool: str, *arguments: str) -> str:
    """Run one of the tools that ship with Triton."""
    command = [str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Global memory of one launch, from its geometry: one 512 x 512 image, fp16, DDIM, Eq. 2.

    minimum: each value that the step needs and gives, once. distinct: what the launch touches, each
    value once (what must cross the L2 cache at least). requested: as its instructions ask for it,
    with stencil rows and second readings.
    """

    minimum: int
    distinct: int
    requested: int


def traffic() -> dict[str, Traffic]:
    """By kernel; the two launches of the fusion stage share one minimum, that of the stage."""
    plane = 64 * 64
    half, single = 4 * plane * 2, 4 * plane * 4  # one [4, 64, 64] in fp16, in float32
    maps = 2 * plane * 4
    ends = 2 * single + half  # latents in and out, the engines' latents out
    saliency_rows = 16 * 8 - 4  # 16 tiles of 8 rows, less the 2 beyond either border
    picture = 3 * 512 * 512
    return {
        "guided_step": _once(2 * half + ends),
        "fusion_saliency": Traffic(
            minimum=5 * half + ends,
            distinct=4 * half + maps,
            requested=4 * half * saliency_rows // 64 + maps,
        ),
        "fusion_blend": Traffic(
            minimum=5 * half + ends,
            distinct=5 * half + maps + ends,
            requested=5 * half + maps + ends,
        ),
        "pixels": _once(2 * picture + picture),
    }


def _once(nbytes: int) -> Traffic:
    """A launch that touches exactly what the step needs, each value once."""
    return Traffic(minimum=nbytes, distinct=nbytes, requested=nbytes)


def measured_cubins(options: Options) -> CubinsRecord:
    """Compile every kernel and tabulate it per architecture."""
    architectures = QUICK_ARCHITECTURES if options.quick else ARCHITECTURES
    with tempfile.TemporaryDirectory() as name:
        manifest = build_cubins(
            Path(name),
            precision=PRECISION,
            architectures=architectures,
            progress=lambda line: print(line, file=sys.stderr),
        )
        rows = tuple(
            _cubin_row(Path(name), manifest, kernel, architecture)
            for kernel in manifest.kernels
            for architecture in architectures
        )
    return CubinsRecord(header=header_of("cubins", options, gpu=None), rows=rows)


def _cubin_row(folder: Path, manifest: KernelManifest, kernel: str, architecture: int) -> CubinRow:
    entry = manifest.kernels[kernel]
    moved = traffic()[entry.entry]
    return CubinRow(
        kernel=kernel,
        architecture=f"sm_{architecture}",
        threads=entry.threads,
        shared_nbytes=entry.cubins[architecture].shared_nbytes,
        **asdict(facts_of(cubin_path(folder, kernel, architecture))),
        distinct_over_minimum=round(moved.distinct / moved.minimum, 2),
        requested_over_minimum=round(moved.requested / moved.minimum, 2),
    )


MEASURE = Measure(options=Options, measure=measured_cubins, text=table_of)
