"""How large each activation gets in a model's own calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engines.contract import Component
from export.quantization.calls import Call, Float32Array

# Share of an activation's values that INT8 tells apart; the rarest are clipped. Of 0.999, 0.9999,
# 0.99999 and all, it leaves the least error in the shipped model's guided noise.
INT8_QUANTILE = 0.9999


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Largest magnitude of each activation, of all values and of INT8_QUANTILE of them."""

    largest: Mapping[str, float]
    quantile: Mapping[str, float]


@dataclass
class Ranges:
    """What a component's calls have shown of its activations so far.

    The quantile is taken of each call and the largest kept, so that no timestep is clipped for the
    sake of the others. owners: components that share a graph share its ranges.
    """

    activations: Mapping[Component, Sequence[str]]
    owners: Mapping[Component, Component]
    _largest: dict[Component, dict[str, float]] = field(default_factory=dict)
    _quantile: dict[Component, dict[str, float]] = field(default_factory=dict)

    def hear(self, call: Call) -> None:
        largest = self._largest.setdefault(self.owners[call.component], {})
        quantile = self._quantile.setdefault(self.owners[call.component], {})
        tensors = {**call.inner, **call.inputs}
        for name in self.activations[call.component]:
            magnitudes = np.abs(tensors[name]).ravel()
            largest[name] = max(largest.get(name, 0.0), float(magnitudes.max()))
            quantile[name] = max(quantile.get(name, 0.0), _quantile(magnitudes))

    def peaks(self, component: Component) -> Peaks:
        return Peaks(largest=self._largest[component], quantile=self._quantile[component])


def _quantile(magnitudes: Float32Array) -> float:
    place = min(int(INT8_QUANTILE * magnitudes.size), magnitudes.size - 1)
    return float(np.partition(magnitudes, place)[place])
