"""What every record says: how the measurement ended, where and with what; its facts and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# 1 had no schema number, status, command, seeds or facts, and fewer fields of the machine.
SCHEMA_VERSION = 2


class Status(StrEnum):
    """What became of a benchmark, or of one row of it.

    SKIPPED: this machine lacks what it takes. REFUSED: the reference check failed, so there is no
    speed to report. FAILED: it was started and did not end well.
    """

    MEASURED = "measured"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that measured; what the system does not tell is None.

    isa: instruction sets that decide how fast matrix products are. others_share: the share of all
    processor time that other processes took. gpu: the name of the GPU that computed. gpu_facts: by
    nvidia-smi's own names.
    """

    system: str | None = None
    kernel: str | None = None
    cpu: str | None = None
    cpus: int | None = None
    usable_cpus: int | None = None
    isa: tuple[str, ...] = ()
    clock_mhz: float | None = None
    governor: str | None = None
    memory_nbytes: int | None = None
    others_share: float | None = None
    busy: bool | None = None
    gpu_facts: Mapping[str, str] | None = None
    python: str | None = None
    gpu: str | None = None


@dataclass(frozen=True, kw_only=True)
class Header:
    """How a measurement ended, where and with what.

    reason: why nothing was measured. time: ISO 8601. commit: of the working tree, with "-dirty"
    where it had changes. versions: of each package, None where it is not installed. seeds: of all
    random numbers that went in. quick: few samples, small cases.
    """

    benchmark: str
    schema_version: int
    status: Status
    reason: str | None
    time: str
    commit: str | None
    command: str | None
    machine: Machine
    versions: Mapping[str, str | None]
    seeds: tuple[int, ...]
    quick: bool


@dataclass(frozen=True, kw_only=True)
class NoFacts:
    """Nothing holds for all rows beside the header."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One benchmark's rows, and the facts that hold for all of them; each benchmark has its own."""

    header: Header
    facts: object
    rows: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class NotMeasured(Record):
    """A benchmark that was skipped, refused or failed; its header says why."""

    facts: NoFacts = NoFacts()
    rows: tuple[object, ...] = ()
