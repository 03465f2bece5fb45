"""What a tenant may ask for in a minute."""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    """A token bucket for each tenant: it holds a minute's worth and fills evenly."""

    def __init__(self, a_minute: int, clock: Callable[[], float]) -> None:
        self._most = float(a_minute)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, tenant: str, amount: int) -> float:
        """Seconds until so much is there; 0 if it is now. More than a minute's worth never is."""
        missing = amount - self._now(tenant)
        return max(0.0, missing * 60 / self._most)

    def take(self, tenant: str, amount: int) -> None:
        self._left[tenant] = (self._now(tenant) - amount, self._clock())

    def _now(self, tenant: str) -> float:
        left, when = self._left.get(tenant, (self._most, self._clock()))
        return min(self._most, left + (self._clock() - when) * self._most / 60)
