"""How a host computes: provider, precision of the U-Nets, threads; and all that could be chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engines.bundle.records import Count, Seconds
from engines.engine import HostPrecision, Provider
from engines.errors import ProviderUnavailableError, RequestError, did_you_mean, shown
from engines.providers import HOST_PROVIDERS
from engines.threads import processors

# Of the time of calls alone, what a call together must stay below. A near-linear processor gains
# nothing by it, and whoever shares a call waits for its whole length.
_PAYS = 0.9


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """precision: of the U-Nets; everything else computes in float32."""

    provider: Provider
    precision: HostPrecision
    threads: Count

    def in_words(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.provider} in {self.precision} on {threads}"


@dataclass(frozen=True, kw_only=True)
class CallTime:
    """How long a U-Net's call takes with these settings. load_s: to open it.

    images_s: of a call with so many images, 1 among them; empty where that was not measured.
    """

    settings: HostSettings
    call_s: Seconds
    load_s: Seconds
    images_s: dict[int, Seconds] = field(default_factory=dict)

    def pays(self, images: Sequence[int]) -> bool:
        """Whether calls of so many images each are clearly slower than one with all of them."""
        together, alone = self._seconds(sum(images)), list(map(self._seconds, images))
        return together < _PAYS * sum(alone) < math.inf

    def _seconds(self, images: int) -> float:
        """Between what was measured a straight line; beyond, nothing is known."""
        counts = sorted(self.images_s)
        if not counts or not counts[0] <= images <= counts[-1]:
            return math.inf
        return float(np.interp(images, counts, [self.images_s[each] for each in counts]))


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """Settings that could not be measured, and why."""

    settings: HostSettings
    reason: str


def checked_precision(name: HostPrecision | str | None) -> HostPrecision | None:
    """A precision that was asked for; None for the fastest. Raises RequestError."""
    if name is None:
        return None
    try:
        return HostPrecision(name)
    except ValueError:
        choices = ", ".join(HostPrecision)
        raise RequestError(
            f"precision must be one of {choices}, got {shown(name)}"
            f"{did_you_mean(name, HostPrecision)}"
        ) from None


def default_settings(
    provider: Provider, precision: HostPrecision | None, threads: int | None
) -> HostSettings:
    """What is taken where nothing was measured: float32, on all processors.

    Raises ProviderUnavailableError for a precision that the provider has not here.
    """
    wanted = precision or HostPrecision.FLOAT32
    if wanted not in HOST_PROVIDERS[provider].precisions():
        raise ProviderUnavailableError(
            f"{provider} does not compute in {wanted} on this processor; ask for "
            f"{HostPrecision.FLOAT32}, or leave the precision out"
        )
    return HostSettings(provider=provider, precision=wanted, threads=threads or processors())


def kinds(
    provider: Provider | None, precision: HostPrecision | None
) -> Iterator[tuple[Provider, HostPrecision]]:
    """Every provider that is installed, in every precision that it has here.

    provider, precision: leave these alone.
    """
    for each, host in HOST_PROVIDERS.items():
        if provider not in (None, each):
            continue
        try:
            found = host.precisions()
        except ProviderUnavailableError:
            continue
        yield from ((each, it) for it in found if precision in (None, it))
