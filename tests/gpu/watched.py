"""A CUDA driver with an eye on what is called."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from engines.cuda.driver import checked


@dataclass
class Watched:
    """quiet: only launches and events pass. nodes: what each captured graph is made of."""

    real: Any
    quiet: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    nodes: list[Counter[str]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if not name.startswith("cu"):
            return value

        def watched(*arguments: Any) -> Any:
            self.calls[name] += 1
            if self.quiet and not name.startswith(("cuGraphLaunch", "cuEvent", "cuLaunch")):
                raise AssertionError(f"{name} between the first step and the last")
            if name == "cuGraphInstantiate" and hasattr(self.real, "cuGraphGetNodes"):
                self.nodes.append(self._kinds(arguments[0]))
            return value(*arguments)

        return watched

    def _kinds(self, graph: Any) -> Counter[str]:
        _, _, count = self.real.cuGraphGetNodes(graph)
        nodes, _ = checked(self.real.cuGraphGetNodes(graph, count), "cuGraphGetNodes")
        kinds = [checked(self.real.cuGraphNodeGetType(n), "cuGraphNodeGetType") for n in nodes]
        return Counter(kind.name for kind in kinds)
