"""A record of the cubins benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.schema.record import NoFacts, Record


@dataclass(frozen=True, kw_only=True)
class CubinFacts:
    """What one cubin says of itself; loads and stores are those of global memory."""

    registers: int
    spilled_nbytes: int
    loads: int
    loads_of_16_nbytes: int
    stores: int
    stores_of_16_nbytes: int
    instructions: int
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class CubinLaunch:
    """Which cubin, and how it is launched. architecture: "sm_90" and the like."""

    kernel: str
    architecture: str
    threads: int
    shared_nbytes: int


# A dataclass takes its fields from the last base first: the launch leads the table.
@dataclass(frozen=True, kw_only=True)
class CubinRow(CubinFacts, CubinLaunch):
    """Bytes of global memory over the fewest that the step needs.

    distinct: what a launch touches. requested: as its instructions ask for it.
    """

    distinct_over_minimum: float
    requested_over_minimum: float


@dataclass(frozen=True, kw_only=True)
class CubinsRecord(Record):
    facts: NoFacts = field(default_factory=NoFacts)
    rows: tuple[CubinRow, ...]
