"""A bundle's U-Nets in 8 bits: calibrated, written, compared with half precision, published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from engines.bundle.files import sha256_of_file, write_atomic
from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import ComponentRecord, Dimensions
from engines.bundle.quantization import (
    Quantization,
    QuantizationError,
    QuantizationRecipe,
    QuantizedGraph,
)
from engines.bundle.records import from_json, to_json
from engines.contract import NOISE_PREDICTORS, Component
from engines.system.heap import trim_heap
from export.checks.parity import ParityError
from export.component import published
from export.graph.cpu_graph import cpu_graph
from export.graph.file import load_graph
from export.quantization.calibration import Peaks, Ranges
from export.quantization.calls import BundlePipeline, Call
from export.quantization.gate import holds, measured_error
from export.quantization.pictures import Calibration
from export.quantization.qdq import Format, dequantizer_of, quantized_graph, save_beside
from export.quantization.sites import Kind, Site, blocks_of, sites_of, stored_sites
from export.source import ModelSource

Say = Callable[[str], None]

_FORMATS = {
    Quantization.INT8: {Kind.MATRIX: Format.INT8, Kind.CONVOLUTION: Format.INT8},
    Quantization.FP8: {Kind.MATRIX: Format.FP8, Kind.CONVOLUTION: Format.INT8},
}
# Blocks at the end of the U-Net that multiply in half: they hold most of the error. The weights of
# most of their matrices are in 8 bits all the same (stored_sites).
_HALF_AT_END = 2
# Above this size of its weights, no two U-Nets are open at once.
_KEEP_OPEN_NBYTES = 1 << 28
_CODE = ("build", "calibration", "calls", "gate", "pictures", "qdq", "sites")


def quantized_components(
    bundle: Path,
    source: ModelSource,
    dimensions: Dimensions,
    records: Mapping[Component, ComponentRecord],
    quantizations: Sequence[Quantization],
    calibration: Calibration,
    say: Say,
) -> dict[Component, ComponentRecord]:
    """The same records, their U-Nets' with 8-bit graphs; what an earlier build left is kept.

    Where both U-Nets are one file, its graph is calibrated with the calls of both. Raises
    ParityError, and publishes nothing, where a U-Net drifts too far with any block in 8 bits.
    """
    if not quantizations:
        return dict(records)
    owners = {component: _owner(records[component]) for component in NOISE_PREDICTORS}
    graphs: dict[tuple[Component, Quantization], QuantizedGraph] = {}
    bench: Bench | None = None
    for owner in dict.fromkeys(owners.values()):
        digest = _input_digest(records[owner], calibration)
        for quantization in quantizations:
            graph = _kept(bundle, owner, quantization, digest)
            if graph is not None:
                say(f"{owner} in {quantization}: unchanged, kept")
            else:
                if bench is None:
                    say(
                        f"calibrating 8-bit scales on {len(calibration.pictures())} pictures of "
                        f"{calibration.steps} steps"
                    )
                    bench = Bench(bundle, source, dimensions, records, calibration)
                graph = bench.quantized(owner, quantization, digest, say)
            graphs[owner, quantization] = graph
    return dict(records) | {
        component: dataclasses.replace(
            records[component],
            quantized={each: graphs[owner, each] for each in quantizations},
        )
        for component, owner in owners.items()
    }


class Bench:
    """A model's own calls: what its scales are taken from and what its graphs are judged by."""

    def __init__(
        self,
        bundle: Path,
        source: ModelSource,
        dimensions: Dimensions,
        records: Mapping[Component, ComponentRecord],
        calibration: Calibration,
    ) -> None:
        self._bundle, self._records, self._calibration = bundle, records, calibration
        self._owners = {component: _owner(records[component]) for component in NOISE_PREDICTORS}
        self._sites = {
            component: sites_of(load_graph(bundle / records[component].onnx))
            for component in NOISE_PREDICTORS
        }
        read = {
            component: list(dict.fromkeys(site.activation for site in sites))
            for component, sites in self._sites.items()
        }
        nbytes = sum(records[component].onnx_nbytes() for component in NOISE_PREDICTORS)
        keep_open = nbytes < _KEEP_OPEN_NBYTES
        ranges, self._held_out = Ranges(read, self._owners), list[Call]()
        pipeline = BundlePipeline(
            source, dimensions, bundle, records, ranges.hear, inner=read, keep_open=keep_open
        )
        for picture in calibration.pictures():
            pipeline.draw(picture, calibration.steps)
        pipeline = BundlePipeline(
            source, dimensions, bundle, records, self._held_out.append, inner={},
            keep_open=keep_open,
        )  # fmt: skip
        pipeline.draw(calibration.held_out(), calibration.steps)
        del pipeline
        trim_heap()
        self._peaks = {owner: ranges.peaks(owner) for owner in self._owners.values()}

    def quantized(
        self, component: Component, quantization: Quantization, digest: str, say: Say
    ) -> QuantizedGraph:
        """Write, compare and publish one graph, with all blocks in 8 bits that the bounds allow."""
        sites = self._sites[component]
        half = blocks_of(sites)[-_HALF_AT_END:]
        order: list[str] | None = None
        while True:
            asked = [site for site in sites if site.block not in half]
            if not asked:
                raise ParityError(
                    f"{component} drifts too far from half precision with any of its blocks in "
                    f"{quantization}; build without --{quantization}"
                )
            stored = stored_sites(sites, half)
            error = self._written(component, quantization, asked, stored)
            say(
                f"{component} in {quantization}: {len(asked)} of {len(sites)} products and the "
                f"weights of {len(stored)} more, within "
                f"{error.call:.1e} a call (bound {error.call_bound:.1e}) and {error.guided:.1e} of "
                f"the guided noise (bound {error.guided_bound:.1e}) of half precision on "
                f"{error.calls} calls"
            )
            if holds(error):
                break
            if not self._calibration.binding and math.isfinite(error.call + error.guided):
                say(f"{component} in {quantization}: of random weights, the bounds say nothing")
                break
            if order is None:
                say(f"{component} in {quantization}: beyond its bounds; measuring each block alone")
                order = self._by_sensitivity(component, quantization, half)
            half = [*half, order.pop(0)]
            say(f"{component} in {quantization}: {half[-1]} stays in half")
        recipe = QuantizationRecipe(
            nodes=tuple(site.node for site in asked),
            half_blocks=tuple(half),
            weights=tuple(dict.fromkeys(dequantizer_of(site.weight) for site in stored)),
        )
        return self._published(component, quantization, digest, recipe, error)

    def _by_sensitivity(
        self, component: Component, quantization: Quantization, half: Sequence[str]
    ) -> list[str]:
        """The blocks in 8 bits, the one that errs most alone first; what is no number errs most."""
        sites = [site for site in self._sites[component] if site.block not in half]
        alone = {
            block: self._written(
                component, quantization, [site for site in sites if site.block == block]
            ).guided
            for block in blocks_of(sites)
        }
        return sorted(alone, key=lambda block: -np.nan_to_num(alone[block], nan=np.inf))

    def _written(
        self,
        component: Component,
        quantization: Quantization,
        asked: Sequence[Site],
        stored: Sequence[Site] = (),
    ) -> QuantizationError:
        """Write a graph with these sites into the staging folder and compare it.

        stored: sites whose weights alone are in 8 bits.
        """
        staging = _staging(self._bundle, component, quantization)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        formats = _FORMATS[quantization]
        half_path = self._bundle / self._records[component].onnx
        graph = quantized_graph(
            load_graph(half_path), asked, _clipped(self._peaks[component], asked, formats), formats,
            half_path.parent, stored=stored,
        )  # fmt: skip
        stem = half_path.stem
        path = staging / f"{stem}.{quantization}.onnx"
        cpu_path = staging / f"{stem}.{quantization}.cpu.onnx"
        save_beside(graph, half_path, path)
        del graph
        trim_heap()
        onnx.save(cpu_graph(load_graph(path)), cpu_path)
        calls = [call for call in self._held_out if self._owners[call.component] is component]
        return measured_error(cpu_path, calls)

    def _published(
        self,
        component: Component,
        quantization: Quantization,
        digest: str,
        recipe: QuantizationRecipe,
        error: QuantizationError,
    ) -> QuantizedGraph:
        stem = Path(self._records[component].onnx).stem
        staging = _staging(self._bundle, component, quantization)
        graph = QuantizedGraph(
            input_digest=digest,
            onnx=f"onnx/{stem}.{quantization}.onnx",
            cpu_onnx=f"onnx/{stem}.{quantization}.cpu.onnx",
            files=published(staging, self._bundle / "onnx"),
            recipe=recipe,
            calibration=self._calibration.digest(),
            pictures=len(self._calibration.pictures()),
            error=error,
        )
        text = to_json(graph, indent=1) + "\n"
        write_atomic(_journal(self._bundle, component, quantization), text.encode())
        return graph


def _clipped(
    peaks: Peaks, sites: Sequence[Site], formats: Mapping[Kind, Format]
) -> dict[tuple[str, Format], float]:
    """Where each activation ends in each format: FP8 keeps its largest value, INT8 a quantile."""
    return {
        (site.activation, form): (peaks.quantile if form is Format.INT8 else peaks.largest)[
            site.activation
        ]
        for site in sites
        for form in [formats[site.kind]]
    }


def _owner(record: ComponentRecord) -> Component:
    """Whose name a graph's files have: the first component of those that share its weights."""
    return Component(Path(record.onnx).stem)


def _input_digest(record: ComponentRecord, calibration: Calibration) -> str:
    folder = Path(__file__).parent
    facts = [
        record.input_digest,
        calibration.digest(),
        [sha256_of_file(folder / f"{name}.py") for name in _CODE],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _kept(
    bundle: Path, component: Component, quantization: Quantization, digest: str
) -> QuantizedGraph | None:
    """What an earlier build finished of the same inputs."""
    try:
        graph = from_json(QuantizedGraph, _journal(bundle, component, quantization).read_bytes())
    except (OSError, ValueError):
        return None
    whole = all(file.describes(bundle / name) for name, file in graph.files.items())
    return graph if whole and graph.input_digest == digest else None


def unfinished(bundle: Path, quantizations: Sequence[Quantization]) -> int:
    """How many of these kinds no earlier build has finished for any U-Net."""
    return sum(
        not any(_journal(bundle, component, each).exists() for component in NOISE_PREDICTORS)
        for each in quantizations
    )


def _staging(bundle: Path, component: Component, quantization: Quantization) -> Path:
    return bundle / BUILD_FOLDER / f"{component}.{quantization}"


def _journal(bundle: Path, component: Component, quantization: Quantization) -> Path:
    return bundle / BUILD_FOLDER / f"{component}.{quantization}.json"
