"""The race: every setting that could be chosen here, measured one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from engines.bundle.folder import Bundle
from engines.engine import HostPrecision, Provider
from engines.errors import ProviderUnavailableError
from engines.threads import processors
from engines.tune.measure import call_time
from engines.tune.record import Conditions, TuneRecord, keep, kept
from engines.tune.settings import CallTime, HostSettings, NotMeasured, kinds

# Of one child: to load and call a full-size U-Net takes a minute.
_LONGEST_S = 600.0
# Of calls whose times are compared.
_IMAGES = (1, 2, 4)
Say = Callable[[str], None]


def race(
    bundle: Bundle,
    *,
    provider: Provider | None = None,
    precision: HostPrecision | None = None,
    threads: int | None = None,
    limit_s: float = math.inf,
    together: bool = False,
    say: Say = lambda _: None,
) -> TuneRecord:
    """Measure what could compute the U-Nets here, and keep the result for the next opening.

    Every provider in every precision on all processors, then the fastest on half as many, and again
    on half, as long as that is no slower. provider, precision, threads: these alone. limit_s: in
    all; what was not reached by then is not measured. What an earlier race measured and this one
    does not stays. together: also measure calls with several images, of the fastest. Raises
    ProviderUnavailableError where nothing could be measured.
    """
    end = time.monotonic() + limit_s
    calls: list[CallTime] = []
    missed: list[NotMeasured] = []

    def measure(settings: HostSettings, images: Sequence[int] = ()) -> CallTime | None:
        left_s = end - time.monotonic()
        found: CallTime | NotMeasured = NotMeasured(settings=settings, reason="out of time")
        if left_s > 0:
            # A child without a limit would be waited for without end.
            found = call_time(bundle, settings, min(left_s, _LONGEST_S), images)
        if isinstance(found, NotMeasured):
            missed.append(found)
            say(f"{settings.in_words()}: not measured ({found.reason})")
            return None
        calls.append(found)
        say(f"{settings.in_words()}: {in_words(found.call_s)} a call")
        for count, seconds in found.images_s.items():
            say(f"  with {count} image{'s' if count > 1 else ''} {in_words(seconds)}")
        return found

    for each, precise in kinds(provider, precision):
        measure(HostSettings(provider=each, precision=precise, threads=threads or processors()))
    best = min(calls, key=lambda each: each.call_s, default=None)
    while threads is None and best is not None and best.settings.threads > 1:
        fewer = replace(best.settings, threads=math.ceil(best.settings.threads / 2))
        tried = measure(fewer)
        if tried is None or tried.call_s > best.call_s:
            break
        best = tried
    if not calls:
        raise ProviderUnavailableError(_nothing(missed))
    if together and best is not None and (tried := measure(best.settings, _IMAGES)) is not None:
        calls.remove(best)
    calls = _with_earlier(calls, kept(bundle))
    record = TuneRecord(conditions=Conditions.of(bundle), calls=tuple(calls))
    keep(bundle, record)
    return record


def _with_earlier(calls: Sequence[CallTime], before: TuneRecord | None) -> list[CallTime]:
    """What was measured now, and of what was measured before all that it does not replace."""
    earlier = {} if before is None else {each.settings: each for each in before.calls}
    merged = []
    for each in calls:
        known = earlier.pop(each.settings, each)
        merged.append(each if each.images_s else replace(each, images_s=known.images_s))
    return [*merged, *earlier.values()]


def in_words(seconds: float) -> str:
    """A call's time with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _nothing(missed: Sequence[NotMeasured]) -> str:
    if not missed:
        return "no provider for this machine's processors is installed that fits what was asked for"
    reasons = "; ".join(f"{each.settings.in_words()}: {each.reason}" for each in missed)
    return f"nothing could be measured: {reasons}"
