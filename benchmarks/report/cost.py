"""What pictures cost: machine hours, money and energy, of what was measured; the rest is said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.headings import heading, machine_words, model_words
from benchmarks.report.quantities import quantity, three
from benchmarks.schema.latency import LatencyRecord
from benchmarks.schema.record import Machine, Record
from benchmarks.schema.throughput import ThroughputRecord
from engines.engine import Provider

NOT_MEASURED = "not measured"
NO_PRICE, NO_POWER = "no price given", "power not known"


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """What a machine costs an hour, in whatever money, and draws, in watts; None where unknown."""

    per_hour: float | None = None
    watts: float | None = None


def cost_rows(records: Iterable[Record], tariff: Tariff) -> list[dict[str, Any]]:
    """A row for each way to draw one picture that was measured, and for each provider that was not.

    Energy is what the machine draws, as --watts says, else the power limit of the GPU that
    computed, which is the most that the GPU takes.
    """
    latencies = [each for each in records if isinstance(each, LatencyRecord)]
    rows, measured = [], set()
    for record in latencies:
        for row in record.measured():
            if (row.kind, row.name) == ("picture", "pipeline"):
                measured.add(row.provider)
                how = f"{row.provider}, {record.facts.threads} threads"
                images = record.facts.workload.images
                rows.append(_row(record, how, row.p50_ms / 1e3 / images, tariff))
    for throughput in (each for each in records if isinstance(each, ThroughputRecord)):
        done = throughput.measured()
        if done:
            best = max(done, key=lambda row: row.pictures_per_s)
            how = f"{throughput.facts.provider}, {best.images} a call, {best.processes} processes"
            rows.append(_row(throughput, how, 1 / best.pictures_per_s, tariff))
    missing = [each for each in Provider if each not in measured]
    return rows + [_unmeasured(each) for each in missing]


def _row(record: Record, how: str, picture_s: float, tariff: Tariff) -> dict[str, Any]:
    hours = picture_s * 1000 / 3600
    watts = tariff.watts or _gpu_watts(record.header.machine)
    return {
        "drawn by": how,
        "of": heading(record).partition(": ")[2].partition(";")[0] or model_words(record),
        "on": machine_words(record.header.machine),
        "one picture": quantity(picture_s, "s"),
        "1000 pictures": quantity(hours, "h") if hours >= 1 else f"{three(60 * hours)} min",
        "cost of 1000": NO_PRICE if tariff.per_hour is None else three(hours * tariff.per_hour),
        "pictures per kWh": NO_POWER if watts is None else three(3.6e6 / (watts * picture_s)),
    }


def _unmeasured(provider: Provider) -> dict[str, Any]:
    columns: Sequence[str] = (
        "of", "on", "one picture", "1000 pictures", "cost of 1000", "pictures per kWh",
    )  # fmt: skip
    return {"drawn by": provider.value} | dict.fromkeys(columns, NOT_MEASURED)


def _gpu_watts(machine: Machine) -> float | None:
    """The power limit of the GPU that computed."""
    if machine.gpu is None or machine.gpu_facts is None:
        return None
    found = re.match(r"[\d.]+", machine.gpu_facts.get("power.limit", ""))
    return None if found is None else float(found[0])
