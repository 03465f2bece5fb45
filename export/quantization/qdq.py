"""Explicit quantization of a graph: QuantizeLinear and DequantizeLinear around its sites.

Rules of ONNX and TensorRT that shape it: an activation is quantized once for all that read it;
weights are stored in 8 bits behind a DequantizeLinear alone; every scale of a product in 8 bits is
a single number, and matrices that read one activation share theirs. With a scale for each output
channel, the usual choice, the builder leaves a product's sum unscaled in half precision, where it
exceeds 65504 in nearly every product, and it joins matrices into one product only where they share
a scale. Where a product is in half and its weight alone is stored in 8 bits, the weight is scaled
before it is multiplied, and each of its output channels has a scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.file import load_weights, values_of
from export.quantization.sites import Kind, Site, output_axis

# The least scale that is no subnormal number in half precision.
_LEAST_SCALE = 2.0**-14


class Format(StrEnum):
    """How 8 bits make a number."""

    INT8 = "int8"
    FP8 = "fp8"

    @property
    def top(self) -> float:
        """The largest magnitude: FP8 is E4M3 without infinities; INT8 leaves -128 out."""
        return 127.0 if self is Format.INT8 else 448.0

    @property
    def onnx_type(self) -> int:
        return TensorProto.INT8 if self is Format.INT8 else TensorProto.FLOAT8E4M3FN

    def scale(self, peak: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """What an 8-bit number is multiplied by so that the top stands for the peak."""
        return np.maximum(np.asarray(peak) / self.top, _LEAST_SCALE).astype(np.float16)

    def stored(
        self, values: npt.NDArray[np.float32], scale: npt.NDArray[np.float16]
    ) -> npt.NDArray[np.generic]:
        """Values in units of the scale as it is after rounding, each in one byte."""
        units = np.clip(values / scale.astype(np.float32), -self.top, self.top)
        if self is Format.INT8:
            whole: npt.NDArray[np.int8] = np.rint(units).astype(np.int8)
            return whole
        eight: npt.NDArray[np.generic] = units.astype(ml_dtypes.float8_e4m3fn)
        return eight


def quantized_graph(
    model: ModelProto,
    sites: Sequence[Site],
    peaks: Mapping[tuple[str, Format], float],
    formats: Mapping[Kind, Format],
    folder: Path,
    *,
    stored: Sequence[Site] = (),
) -> ModelProto:
    """A half-precision graph with these sites in 8 bits; its other weights stay where they are.

    peaks: by activation and format, the largest magnitude that is told apart; what is larger is
    clipped. folder: where the graph's weights file lies. stored: further sites, which multiply in
    half and whose weights alone are in 8 bits. The result holds the 8-bit weights itself.
    """
    made = ModelProto()
    made.CopyFrom(model)
    surgery = _Surgery(made, sites, peaks, formats, folder, stored)
    surgery.perform()
    return made


class _Surgery:
    """One graph under the knife: what is new, and what was quantized already."""

    def __init__(
        self,
        model: ModelProto,
        sites: Sequence[Site],
        peaks: Mapping[tuple[str, Format], float],
        formats: Mapping[Kind, Format],
        folder: Path,
        stored: Sequence[Site],
    ) -> None:
        self._graph = model.graph
        self._sites = {site.node: site for site in sites}
        self._in_half = {site.node: site for site in stored}
        self._peaks = peaks
        self._formats = formats
        self._folder = folder
        self._weights = {each.name: each for each in model.graph.initializer}
        self._weight_peaks = self._shared_peaks(sites)
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._pairs: dict[tuple[str, Format], str] = {}
        self._stored: dict[str, str] = {}

    def perform(self) -> None:
        for node in self._graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            if (site := self._sites.get(node.name)) is not None:
                copy.input[0] = self._activation(site)
                copy.input[1] = self._weight(site)
            elif (site := self._in_half.get(node.name)) is not None:
                copy.input[1] = self._weight_alone(site, node)
            self._nodes.append(copy)
        read = {name for node in self._nodes for name in node.input}
        kept = [each for each in self._graph.initializer if each.name in read]
        copies = []
        for each in kept:
            initializer = TensorProto()
            initializer.CopyFrom(each)
            copies.append(initializer)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        del self._graph.initializer[:]
        self._graph.initializer.extend([*copies, *self._initializers])

    def _shared_peaks(self, sites: Sequence[Site]) -> dict[str, float]:
        """Largest weight of each site, or of all matrices that read the same activation."""
        own = {site.node: float(np.abs(self._values(site.weight)).max()) for site in sites}
        shared: dict[str, float] = {}
        for site in sites:
            if site.kind is Kind.MATRIX:
                shared[site.activation] = max(shared.get(site.activation, 0.0), own[site.node])
        return {
            site.node: shared[site.activation] if site.kind is Kind.MATRIX else own[site.node]
            for site in sites
        }

    def _values(self, weight: str) -> npt.NDArray[np.float32]:
        """A weight's numbers, read when they are needed: all at once are gigabytes."""
        return values_of(self._weights[weight], self._folder).astype(np.float32)

    def _activation(self, site: Site) -> str:
        """The dequantized activation of a site, made once for all sites of its format."""
        name, form = site.activation, self._formats[site.kind]
        if (name, form) not in self._pairs:
            stem = f"{name}.{form}"
            scale, zero = self._scale(stem, form.scale(self._peaks[name, form]), form)
            self._nodes += [
                helper.make_node("QuantizeLinear", [name, scale, zero], [f"{stem}.q"], f"q.{stem}"),
                helper.make_node(
                    "DequantizeLinear", [f"{stem}.q", scale, zero], [f"{stem}.dq"], f"dq.{stem}"
                ),
            ]
            self._pairs[name, form] = f"{stem}.dq"
        return self._pairs[name, form]

    def _weight(self, site: Site) -> str:
        """The dequantized weight of a site."""
        name, form = site.weight, self._formats[site.kind]
        if name not in self._stored:
            scale = form.scale(self._weight_peaks[site.node])
            self._keep(name, form, form.stored(self._values(name), scale), scale)
        return self._stored[name]

    def _weight_alone(self, site: Site, node: NodeProto) -> str:
        """The dequantized weight of a site in half, with a scale for each output channel."""
        name = site.weight
        if name not in self._stored:
            values, axis = self._values(name), output_axis(node, len(self._weights[name].dims))
            others = tuple(each for each in range(values.ndim) if each != axis)
            scale = Format.INT8.scale(np.abs(values).max(others))
            units = Format.INT8.stored(np.moveaxis(values, axis, -1), scale)
            self._keep(name, Format.INT8, np.moveaxis(units, -1, axis), scale, axis=axis)
        return self._stored[name]

    def _keep(
        self,
        name: str,
        form: Format,
        units: npt.NDArray[np.generic],
        scale: npt.NDArray[np.float16],
        axis: int | None = None,
    ) -> None:
        """Add a weight in 8 bits and what makes it half precision."""
        self._initializers.append(
            helper.make_tensor(f"{name}.q", form.onnx_type, units.shape, units.tobytes(), raw=True)
        )
        words = [f"{name}.q", *self._scale(name, scale, form)]
        node = helper.make_node("DequantizeLinear", words, [f"{name}.dq"], dequantizer_of(name))
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._nodes.append(node)
        self._stored[name] = f"{name}.dq"

    def _scale(self, stem: str, scale: npt.NDArray[np.float16], form: Format) -> tuple[str, str]:
        """Names of a scale and its zero point."""
        zeros = bytes(scale.size)
        self._initializers += [
            numpy_helper.from_array(scale, f"{stem}.scale"),
            helper.make_tensor(f"{stem}.zero", form.onnx_type, scale.shape, zeros, raw=True),
        ]
        return f"{stem}.scale", f"{stem}.zero"


def dequantizer_of(weight: str) -> str:
    """Name of the node that dequantizes a weight."""
    return f"dq.{weight}"


def save_beside(model: ModelProto, source: Path, path: Path) -> None:
    """Write a graph and all its weights, those that lie in the source's file too, as two files."""
    load_weights(model, source.parent)
    onnx.save(
        model, path, save_as_external_data=True, location=path.with_suffix(".data").name,
        size_threshold=1024, convert_attribute=False,
    )  # fmt: skip
