"""`python -m export.bisect BUNDLE COMPONENT`: the first layer that drifts, and what fixes it.

Runs the component's half-precision graph and its float32 graph on the same inputs, compares them
tensor by tensor (Polygraphy's comparator), and keeps layers in float32 until the output is within
the gate's bound. Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import commands
from engines.bundle.folder import Bundle
from engines.cli.command import run_command
from engines.cli.flags import one_of
from engines.cli.parser import command_parser
from engines.contract import CONTRACTS, SIZE_MULTIPLE_PX, Component
from engines.errors import FaceDiffuserError, ProviderUnavailableError
from engines.gate import Array, bound_of, gate_inputs, gate_shapes
from engines.plans.profiles import DEFAULT_PROFILE, PROFILES, shape_ranges
from engines.system.processes import child_environment, module_command

if TYPE_CHECKING:
    import onnx

    from export.bisect.compare import Backend, TensorError

# Two latent blocks a side: small enough that every tensor of a full-size U-Net fits in memory.
DEFAULT_SIZE_PX = 2 * SIZE_MULTIPLE_PX
_MAX_ISLAND = 16
_DRIFTS = "this part drifts at"


class BisectError(FaceDiffuserError):
    """There is nothing to look for, or the tools that look are missing."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What was found.

    layer, operator, error: the first node whose output is beyond the bound while its inputs are
    not; None where none is. output_error: of the component. island: nodes to keep in float32.
    fixed_error: the component's error with them so.
    """

    layer: str | None
    operator: str | None
    error: float
    output_error: float
    bound: float
    island: tuple[str, ...]
    fixed_error: float

    def sentence(self) -> str:
        if self.layer is None:
            return (
                f"no layer drifts beyond {self.bound:.1e}; the output is within "
                f"{self.output_error:.1e} of float32 (relative L2)"
            )
        found = (
            f"the first layer that drifts is {self.layer} ({self.operator}): {self.error:.1e} from "
            f"float32, the bound is {self.bound:.1e}"
        )
        nodes = ", ".join(self.island)
        if self.fixed_error <= self.bound:
            return (
                f"{found}; keeping {nodes} in float32 brings the output from "
                f"{self.output_error:.1e} to {self.fixed_error:.1e}"
            )
        return (
            f"{found}; keeping {nodes} in float32 leaves the output at {self.fixed_error:.1e}, so "
            "rounding alone is not the reason"
        )


Errors = Callable[["onnx.ModelProto"], dict[str, "TensorError"]]


def find_drift(half: onnx.ModelProto, output: str, bound: float, errors_of: Errors) -> Drift:
    """Find the first layer that drifts and the smallest island found that fixes the output.

    errors_of: errors of a graph's tensors against float32. The island grows by the layer that
    drifts first, or by what reads it where that is in the island already: a value that half
    precision cannot hold must stay in float32 until it is small again.
    """
    from export.bisect.islands import consumers, with_island

    errors = errors_of(half)
    output_error = errors[output].error
    first = first_drifting(half, errors)
    if first is None:
        return Drift(
            layer=None, operator=None, error=0.0, output_error=output_error, bound=bound,
            island=(), fixed_error=output_error,
        )  # fmt: skip
    island: list[str] = []
    node, fixed_error = first, output_error
    while len(island) < _MAX_ISLAND and fixed_error > bound:
        grown = [node.name] if node.name not in island else consumers(half, [node.name])
        added = [name for name in grown if name not in island]
        if not added:
            break
        island += added
        left = errors_of(with_island(half, island))
        fixed_error = left[output].error
        node = first_drifting(half, left) or node
    error = max(errors[name].error for name in first.output if name in errors)
    return Drift(
        layer=first.name, operator=first.op_type, error=error, output_error=output_error,
        bound=bound, island=tuple(island), fixed_error=fixed_error,
    )  # fmt: skip


def first_drifting(model: onnx.ModelProto, errors: dict[str, TensorError]) -> onnx.NodeProto | None:
    """The first node, in the graph's order, that is beyond the bound while its inputs are not."""
    node: onnx.NodeProto
    for node in model.graph.node:
        within = all(errors[name] for name in node.input if name in errors)
        if within and any(not errors[name] for name in node.output if name in errors):
            return node
    return None


def parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n\n")[0]
    flags = command_parser(commands.BISECT, about, ["bundle", Component.VAE_DECODER])
    flags.add_argument("bundle", type=Path, help="the bundle's folder")
    flags.add_argument(
        "component",
        type=one_of(Component),
        metavar="COMPONENT",
        help=f"whose graph is looked into, of {', '.join(Component)}",
    )
    flags.add_argument(
        "--backend", choices=("onnxruntime", "tensorrt"), default="onnxruntime",
        help="what computes the half-precision graph (default: %(default)s, on the CPU)",
    )  # fmt: skip
    flags.add_argument(
        "--size", type=int, default=DEFAULT_SIZE_PX, metavar="PX",
        help="side of the picture (default: %(default)s); all tensors are held in memory",
    )  # fmt: skip
    flags.add_argument(
        "--reduce", type=Path, metavar="OUT.onnx",
        help="also write the smallest failing part of the graph, by polygraphy debug reduce "
        "(default: do not)",
    )  # fmt: skip
    flags.add_argument("--part", type=Path, metavar="PART.onnx", help=argparse.SUPPRESS)
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return run_command(lambda: _bisect(options), as_json=options.json)


def _bisect(options: argparse.Namespace) -> dict[str, Any]:
    try:
        from export.bisect.compare import Backend, tensor_errors
        from export.graph.file import load_whole
    except ImportError as error:
        raise ProviderUnavailableError(
            f"bisecting needs onnx and Polygraphy ({error}); install them with",
            fix=commands.installed("export"),
        ) from error
    if options.size < SIZE_MULTIPLE_PX or options.size % SIZE_MULTIPLE_PX:
        raise BisectError(f"--size {options.size}, expected a multiple of {SIZE_MULTIPLE_PX}")
    bundle = Bundle.open(options.bundle, plans=False)
    record, backend = bundle.component(options.component), Backend(options.backend)
    single = load_whole(bundle.path / record.cpu_onnx)
    bound = bound_of(options.component, bundle.manifest.precision)
    inputs = _inputs(bundle, options.component, options.size)
    if options.part is not None:
        return _check(options.part, single, inputs, bound, backend)
    drift = find_drift(
        load_whole(bundle.path / record.onnx),
        CONTRACTS[options.component].outputs[0].name,
        bound,
        lambda model: tensor_errors(model, single, inputs, bound, backend),
    )
    if options.reduce is not None:
        _reduce(options, bundle.path / record.onnx)
    if not options.json:
        print(f"{options.component}: {drift.sentence()}")
    # JSON has no infinity: what is not finite is null.
    facts = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in vars(drift).items()
    }
    return {"component": options.component, "sentence": drift.sentence()} | facts


def _inputs(bundle: Bundle, component: Component, size_px: int) -> dict[str, Array]:
    """The gate's first inputs at this size, in the optimization profile with the most passes."""
    dimensions = replace(bundle.manifest.dimensions, native_px=size_px)
    ranges = shape_ranges(component, PROFILES[DEFAULT_PROFILE], dimensions)
    *_, shapes = gate_shapes(ranges)
    return next(gate_inputs(component, shapes))


def _check(
    part: Path, single: onnx.ModelProto, inputs: dict[str, Array], bound: float, backend: Backend
) -> dict[str, Any]:
    """What polygraphy debug reduce asks of each part: raises BisectError if it drifts."""
    import onnx

    from export.bisect.compare import tensor_errors

    model = onnx.load(part)
    outputs = [value.name for value in model.graph.output]
    errors = tensor_errors(model, single, inputs, bound, backend, outputs)
    if drifting := [name for name, error in errors.items() if not error]:
        raise BisectError(f"{_DRIFTS} {', '.join(drifting)}")
    return {"part": str(part)}


def _reduce(options: argparse.Namespace, onnx_path: Path) -> None:
    """Let Polygraphy cut the graph down to the earliest part that drifts."""
    words = (options.component, "--backend", options.backend, "--size", options.size)
    check = module_command(__package__ or "", options.bundle.resolve(), *words)
    start = "import sys; from polygraphy.tools import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "debug", "reduce", str(onnx_path.resolve())]
    command += ["-o", str(options.reduce.resolve()), "--mode", "bisect", "--no-reduce-inputs"]
    # Only a drift counts, no other way in which a part may fail to run.
    command += ["--fail-regex", _DRIFTS]
    command += ["--check", *check, "--part", "polygraphy_debug.onnx"]
    with tempfile.TemporaryDirectory() as folder:
        finished = subprocess.run(
            command, cwd=folder, env=child_environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    if finished.returncode or not options.reduce.is_file():
        last = (finished.stdout + finished.stderr).strip().splitlines()[-1:]
        raise BisectError(f"polygraphy debug reduce found no failing part: {' '.join(last)}")


if __name__ == "__main__":
    sys.exit(main())
