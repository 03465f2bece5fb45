"""Building one component: checkpoint -> torch module -> ONNX -> lint -> parity gate -> bundle."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnx
import torch
from torch import nn

from engines import gate
from engines.bundle.files import FileRecord, file_record, sha256_of_file, write_atomic
from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import (
    ComponentRecord,
    Dimensions,
    Fp32Island,
    Precision,
)
from engines.bundle.records import from_json, to_json
from engines.contract import Component
from engines.gate import bound_of, relative_l2
from engines.system.heap import trim_heap
from export.checks.parity import example_inputs, gate_cases, measured_parity
from export.graph.cpu_graph import cpu_graph
from export.graph.file import load_graph
from export.graph.lint import lint, polygraphy_lint
from export.graph.modules import library_module, wrapped
from export.graph.onnx_from_module import onnx_from_module
from export.graph.unet import BatchedPassesUNet
from export.options import BuildOptions
from export.source import ModelSource

TOOLS = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")
# What decides a graph besides weights and tool versions: the code of these modules.
_GRAPH_CODE = (
    "checkpoint/fusion_mlp",
    "checkpoint/loras/changes",
    "checkpoint/loras/merging",
    "checks/library",
    "checks/parity",
    "component",
    "graph/cpu_graph",
    "graph/modules",
    "graph/onnx_from_module",
    "graph/unet",
)

Progress = Callable[[str], None]


def tool_versions() -> dict[str, str]:
    """Versions of everything that writes into a graph."""
    return {tool: version(tool) for tool in TOOLS}


def input_digest(component: Component, source: ModelSource, options: BuildOptions) -> str:
    """Digest of all that a component's files depend on; equal digests mean equal files."""
    folder = Path(__file__).parent
    facts = {
        "weights": source.digest(component),
        "options": dataclasses.asdict(options),
        "tools": tool_versions(),
        "code": [sha256_of_file(folder / f"{name}.py") for name in _GRAPH_CODE],
        "gate": sha256_of_file(Path(gate.__file__)),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def built_component(bundle: Path, component: Component, digest: str) -> ComponentRecord | None:
    """The record of an earlier build whose inputs were the same and whose files are whole."""
    try:
        record = from_json(ComponentRecord, _journal(bundle, component).read_bytes())
    except (OSError, ValueError):
        return None
    if record.input_digest != digest:
        return None
    whole = all(file.describes(bundle / name) for name, file in record.files.items())
    return record if whole else None


def build_component(
    bundle: Path,
    component: Component,
    source: ModelSource,
    dimensions: Dimensions,
    options: BuildOptions,
    progress: Progress,
) -> ComponentRecord:
    """Export, check and publish one component; raises LintError or ParityError, publishing nothing.

    At no time is there more than one copy of the weights beside the exporter's own.
    """
    staging = bundle / BUILD_FOLDER / component
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    onnx_path = staging / f"{component}.onnx"
    half = options.precision is Precision.FP16

    progress("loading weights")
    library = library_module(component, source)
    progress("running PyTorch on the gate's inputs")
    cases = gate_cases(library, component, dimensions)
    module = wrapped(component, library)
    del library
    example = example_inputs(component, dimensions)
    islands = _fp32_islands(component, module) if half else []
    if half:
        module.half()
        example = {
            name: value.half() if value.is_floating_point() and name != "timestep" else value
            for name, value in example.items()
        }
    progress("exporting to ONNX")
    onnx_from_module(module, component, example, options.opset, onnx_path)
    del module
    gc.collect()
    trim_heap()

    cpu_path = staging / f"{component}.cpu.onnx"
    onnx.save(cpu_graph(load_graph(onnx_path)), cpu_path)
    progress("linting")
    lint(onnx_path, options.precision)
    lint(cpu_path, Precision.FP32, cpu_operators=True)
    polygraphy_lint(onnx_path)

    bound = bound_of(component, options.precision)
    parity = {}
    for name, path in (("onnx", onnx_path), ("cpu_onnx", cpu_path)):
        progress(f"comparing {path.name} with PyTorch")
        parity[name] = measured_parity(path, component, cases, bound)

    record = ComponentRecord(
        input_digest=input_digest(component, source, options),
        onnx=f"onnx/{onnx_path.name}",
        cpu_onnx=f"onnx/{cpu_path.name}",
        files=published(staging, bundle / "onnx"),
        parity=parity,
        fp32_islands=islands,
    )
    text = to_json(record, indent=1) + "\n"
    write_atomic(_journal(bundle, component), text.encode())
    return record


def published(staging: Path, folder: Path) -> dict[str, FileRecord]:
    """Move the finished files of a staging folder into the bundle and record them."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for path in sorted(staging.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        records[f"{folder.name}/{path.name}"] = file_record(path)
        path.replace(folder / path.name)
    staging.rmdir()
    return records


def _fp32_islands(component: Component, module: nn.Module) -> list[Fp32Island]:
    """The parts of a half graph that stay in float32, each with the error it would have in half.

    The angles of the timestep embedding reach 999 radians, where half precision's steps are 0.5.
    """
    if not isinstance(module, BatchedPassesUNet):
        return []
    time_proj = module.unet.time_proj
    exact = time_proj(torch.arange(1000.0))
    first, second = exact[1].chunk(2)
    cosine, sine = (first, second) if time_proj.flip_sin_to_cos else (second, first)
    angles = torch.outer(torch.arange(1000.0), torch.atan2(sine, cosine)).half().float()
    waves = (angles.cos(), angles.sin())
    in_half = torch.cat(waves if time_proj.flip_sin_to_cos else waves[::-1], dim=1)
    return [
        Fp32Island(
            module="time_proj",
            error_in_half=relative_l2(in_half.numpy(), exact.numpy()),
            error_with_island=relative_l2(exact.half().float().numpy(), exact.numpy()),
        )
    ]


def _journal(bundle: Path, component: Component) -> Path:
    return bundle / BUILD_FOLDER / f"{component}.json"
