"""How two bundles differ: what their manifests say of the same thing, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engines.bundle.manifest import Manifest
from engines.bundle.records import document_of
from engines.contract import Component

_DIGEST_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One fact that two manifests state differently; None where one of them does not state it."""

    what: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.what}: {_told(self.first)} | {_told(self.second)}"


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """Every fact of which two manifests tell differently, in the order of the first."""
    facts = dict(_facts(first)), dict(_facts(second))
    names = list(dict.fromkeys([*facts[0], *facts[1]]))
    pairs = [(name, facts[0].get(name), facts[1].get(name)) for name in names]
    return [Difference(what=name, first=a, second=b) for name, a, b in pairs if a != b]


def same_graphs(first: Manifest, second: Manifest) -> dict[Component, bool]:
    """By component, whether graph and weights are the same bytes."""
    return {
        component: first.components[component].onnx_digest()
        == second.components[component].onnx_digest()
        for component in Component
    }


def _facts(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    document = document_of(manifest)
    # Plans go by their names: their order says nothing.
    document["plans"] = {plan.spec.name: document_of(plan) for plan in manifest.plans}
    yield from _leaves(document, "")


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        yield place, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{place}.{key}" if place else str(key))


def _told(value: Any) -> str:
    if value is None:
        return "not there"
    text = str(value)
    return text[:12] + "..." if len(text) == _DIGEST_CHARACTERS else text
