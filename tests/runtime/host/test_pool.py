"""How the pool opens and closes a bundle's engines."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.errors import BundleCorruptError
from runtime.host.pool import EnginePool


class Opened:
    """Counts the engines that are open, and those that are being opened at once."""

    def __init__(self, broken: Component | None = None) -> None:
        self.open: set[Component] = set()
        self.most_at_once = 0
        self._at_once = 0
        self._broken = broken
        self._lock = threading.Lock()
        self._meeting = threading.Barrier(2)

    def __call__(self, _bundle: Bundle, component: Component) -> Any:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        if self._broken is None:
            self._meeting.wait(timeout=30)  # opened one by one, the first would wait in vain
        with self._lock:
            self._at_once -= 1
        if component == self._broken:
            raise BundleCorruptError(f"{component} is broken")
        self.open.add(component)
        return _Engine(component, self.open)


class _Engine:
    provider = "counting"

    def __init__(self, component: Component, opened: set[Component]) -> None:
        self._component = component
        self._opened = opened

    def close(self) -> None:
        self._opened.discard(self._component)


@pytest.fixture
def bundle(golden_bundle: Path) -> Bundle:
    return Bundle.open(golden_bundle)


def test_engines_are_opened_two_at_a_time(bundle: Bundle) -> None:
    assert len(Component) % 2 == 0  # else the last one would wait for a partner
    opened = Opened()
    pool = EnginePool(bundle, open_engine=opened)
    assert opened.open == set(Component)
    assert opened.most_at_once == 2
    pool.close()
    assert not opened.open


@pytest.mark.parametrize("broken", list(Component))
def test_an_engine_that_does_not_open_leaves_none_open(bundle: Bundle, broken: Component) -> None:
    opened = Opened(broken)
    with pytest.raises(BundleCorruptError, match=f"{broken} is broken"):
        EnginePool(bundle, open_engine=opened)
    assert not opened.open


def test_low_memory_opens_nothing_ahead(bundle: Bundle) -> None:
    opened = Opened()
    EnginePool(bundle, low_memory=True, open_engine=opened).close()
    assert opened.most_at_once == 0
