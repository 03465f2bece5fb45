"""What each module of benchmarks/measures/ offers: its options, its measurement, its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.harness.options import Options

Told = TypeVar("Told", bound=Options)
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Measure(Generic[Told, Found]):
    """A module's MEASURE: all that `python -m benchmarks NAME` knows of it.

    options: what it is told; its flags are their fields. measure: what it does. A Record that it
    gives is appended to the results; ProviderUnavailableError is recorded as skipped,
    ReferenceMismatchError as refused. text: what it found, for people.
    """

    options: type[Told]
    measure: Callable[[Told], Found]
    text: Callable[[Found], str]
