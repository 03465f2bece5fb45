"""Where the nodes of a session ran, as ONNX Runtime's own profile of one run tells it.

A session that is asked for the GPU alone still places nodes on the CPU that the CUDA provider has
no kernel for, and says nothing of it. Arithmetic on sizes belongs there; numbers do not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.contract import Component
from engines.errors import ProviderUnavailableError
from engines.onnxruntime.library import CUDA_PROVIDER, PACKAGES

_FLOATS = {"float", "float16", "bfloat16", "double"}
# They look at a tensor's shape, never at its numbers.
_SHAPES_ONLY = {"Shape", "Size"}


@dataclass
class PlacedSession:
    """A session that profiles its first run, and is refused if numbers were computed elsewhere."""

    component: Component
    session: Any
    proved: bool = False

    def run(self, binding: Any, options: Any) -> None:
        """Enqueue a run; raises ProviderUnavailableError once, and whatever the session raises."""
        self.session.run_with_iobinding(binding, options)
        if not self.proved:
            check_placement(self.component, events_of(Path(self.session.end_profiling())))
            self.proved = True

    def close(self) -> None:
        """End the profile of a session that never ran."""
        if not self.proved:
            self.session.end_profiling()


def events_of(profile: Path) -> list[Mapping[str, Any]]:
    """What a profile says of each node that ran."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    return [
        each["args"] | {"name": each["name"].removesuffix("_kernel_time")}
        for each in events
        if each.get("cat") == "Node" and "provider" in each.get("args", {})
    ]


def check_placement(component: Component, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise ProviderUnavailableError where a node with floating-point tensors ran on no GPU."""
    nodes = list(nodes)
    if not nodes:
        raise ProviderUnavailableError(
            f"onnxruntime does not tell where it ran the nodes of {component}, so they may have "
            "run on the CPU; type",
            fix=PACKAGES[CUDA_PROVIDER],
        )
    elsewhere = [node for node in nodes if node["provider"] != CUDA_PROVIDER and _computes(node)]
    if elsewhere:
        kinds = Counter(str(node["op_name"]) for node in elsewhere)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        first = elsewhere[0]
        raise ProviderUnavailableError(
            f"onnxruntime computes {len(elsewhere)} of the {len(nodes)} nodes of {component} on "
            f"{first['provider']} instead of the GPU ({listed}; the first is {first['name']}); "
            "install a release that has them",
            fix=PACKAGES[CUDA_PROVIDER],
        )


def _computes(node: Mapping[str, Any]) -> bool:
    """Whether floating-point numbers go in or come out."""
    if node["op_name"] in _SHAPES_ONLY:
        return False
    tensors = [*node.get("input_type_shape", ()), *node.get("output_type_shape", ())]
    return any(kind in _FLOATS for tensor in tensors for kind in tensor)
