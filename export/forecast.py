"""What a build will do and take, told without doing it."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.contract import Component
from export.checkpoint.model_facts import dimensions_of
from export.checkpoint.random_weights import random_checkpoint
from export.checks.disk_space import told_size, weight_elements, weights_nbytes
from export.component import built_component, input_digest
from export.options import BuildOptions
from export.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """elements: weights of all components. largest: of the largest one."""

    elements: int
    largest: int
    seconds: float
    peak_nbytes: float


# Two builds in half precision without plans, on a server's processor beside other work: of the
# shipped model (107 s of one core), and of Stable Diffusion 1.5's size (6 min 51 s of wall clock on
# 2 cores). What lies between them is taken from the line through both.
_SHIPPED = _Measured(
    elements=8_984_543, largest=3_352_356, seconds=107.0, peak_nbytes=859_380 * 1024
)
_FULL_SIZE = _Measured(
    elements=2_198_517_151, largest=859_520_964, seconds=411.0, peak_nbytes=6_706_184 * 1024
)


@dataclass(frozen=True, kw_only=True)
class BuildForecast:
    """What a build would do. Time and memory are estimates, sizes are counted.

    components: what happens to each: "export", "keep", or "leave" where --only names others.
    known: False where the weights are not here, and the sizes are Stable Diffusion 1.5's instead.
    weights_nbytes: of all components as the bundle holds them. free_nbytes: of the disk.
    memory_nbytes: the most that the build holds at once. host_nbytes: what this machine has; None
    where it does not tell. seconds: without plans, on 2 cores.
    """

    bundle: Path
    options: BuildOptions
    components: dict[Component, str]
    known: bool
    size: str
    weights_nbytes: int
    free_nbytes: int
    memory_nbytes: int
    host_nbytes: int | None
    seconds: float

    def lines(self) -> list[str]:
        """The forecast in words, a sentence each."""
        doing: dict[str, list[str]] = {}
        for component, what in self.components.items():
            doing.setdefault(what, []).append(component)
        told = [f"would {what}: {', '.join(names)}" for what, names in doing.items()]
        assumed = "" if self.known else ", if the weights have Stable Diffusion 1.5's size"
        host = "" if self.host_nbytes is None else f"; this machine has {_gb(self.host_nbytes)}"
        told += [
            f"disk: {self.size}{assumed}; {_gb(self.free_nbytes)} are free at {self.bundle}",
            f"memory: about {_gb(self.memory_nbytes)} at most, estimated from two measured "
            f"builds{host}",
            f"time: about {_minutes(self.seconds)} on 2 cores, estimated from two measured builds; "
            "plans, 8 bits and downloads come on top",
            "nothing was built; leave --dry-run out to build",
        ]
        return told

    def document(self) -> dict[str, Any]:
        """The forecast as --json prints it."""
        return {
            "bundle": str(self.bundle),
            **dataclasses.asdict(self.options),
            "components": {str(name): what for name, what in self.components.items()},
            "weights_here": self.known,
            "weights_nbytes": self.weights_nbytes,
            "free_nbytes": self.free_nbytes,
            "estimated": {
                "memory_nbytes": self.memory_nbytes,
                "seconds": round(self.seconds, 1),
            },
            "host_nbytes": self.host_nbytes,
        }


def forecast_of(
    bundle: Path,
    source: ModelSource | None,
    options: BuildOptions,
    *,
    only: Sequence[Component],
    profiles: Sequence[str] | None,
    quantizations: int,
) -> BuildForecast:
    """Forecast a build from configurations; reads weights only to tell what a bundle there keeps.

    source: None where it is not downloaded yet. profiles: of plans that would follow.
    """
    sized = random_checkpoint() if source is None else source
    dimensions = dimensions_of(sized)
    weights = weights_nbytes(sized, dimensions, options.precision)
    elements = {each: weight_elements(each, sized.config(each), dimensions) for each in Component}
    components = dict.fromkeys(Component, "leave") | dict.fromkeys(only, "export")
    if source is not None and bundle.is_dir():
        for component in only:
            digest = input_digest(component, source, options)
            if built_component(bundle, component, digest) is not None:
                components[component] = "keep"
    exported = [each for each, what in components.items() if what == "export"]
    there = next(each for each in (bundle.absolute(), *bundle.absolute().parents) if each.exists())
    return BuildForecast(
        bundle=bundle,
        options=options,
        components=components,
        known=source is not None,
        size=told_size(weights, dimensions, profiles, quantizations),
        weights_nbytes=sum(weights.values()),
        free_nbytes=shutil.disk_usage(there).free,
        memory_nbytes=int(
            _between(
                max((elements[each] for each in exported), default=0),
                (_SHIPPED.largest, _SHIPPED.peak_nbytes),
                (_FULL_SIZE.largest, _FULL_SIZE.peak_nbytes),
            )
        ),
        host_nbytes=_host_nbytes(),
        seconds=_between(
            sum(elements[each] for each in exported),
            (_SHIPPED.elements, _SHIPPED.seconds),
            (_FULL_SIZE.elements, _FULL_SIZE.seconds),
        ),
    )


def _between(x: float, first: tuple[float, float], second: tuple[float, float]) -> float:
    """The line through two points at x, nowhere below zero."""
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return max(first[1] + slope * (x - first[0]), 0.0)


def _host_nbytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gb(nbytes: float) -> str:
    return f"{nbytes / 1e9:.2f} GB"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
