"""What a record is of, in a line (model, size, steps and machine), and what weakens it."""

from __future__ import annotations

from typing import Any

from benchmarks.schema.facts import BundleFacts
from benchmarks.schema.record import Header, Machine, Record, Status
from engines.bundle.records import document_of

_SHIPPED, _RANDOM = "mini/model", "random weights"


def heading(record: Record) -> str:
    """`latency: shipped model, 128 px, 50 steps; AMD EPYC, 2 cores`, as far as it is recorded."""
    parts = [model_words(record), _size(record), _steps(record)]
    of = ", ".join(part for part in parts if part)
    machine = machine_words(record.header.machine)
    return f"{record.header.benchmark}: " + "; ".join(part for part in (of, machine) if part)


def model_words(record: Record) -> str:
    """Which weights; "" where a record has none."""
    facts = record.facts
    if not isinstance(facts, BundleFacts):
        return "shipped model" if record.header.benchmark in ("quality", "curve", "noticed") else ""
    licenses = " ".join(facts.licenses)
    if _SHIPPED in licenses:
        return "shipped model"
    full = "Stable Diffusion 1.5's size" if facts.weights_fp32_nbytes > 2**32 else ""
    kind = "random weights" if _RANDOM in licenses else "a checkpoint"
    return f"{full}, {kind}" if full else kind


def machine_words(machine: Machine) -> str:
    """The GPU that computed, else the processor and its cores."""
    if machine.gpu is not None:
        return machine.gpu
    cores = machine.usable_cpus or machine.cpus
    return ", ".join(
        [*([machine.cpu] if machine.cpu else []), *([f"{cores} cores"] if cores else [])]
    )


def _size(record: Record) -> str:
    facts = record.facts
    sizes = {row["size_px"] for row in _rows(record) if isinstance(row.get("size_px"), int)}
    if len(sizes) == 1:
        return f"{sizes.pop()} px"
    return f"{facts.native_px} px" if isinstance(facts, BundleFacts) else ""


def _steps(record: Record) -> str:
    facts: dict[str, Any] = document_of(record.facts)
    workload = facts.get("workload") or facts.get("base") or facts
    steps = workload.get("steps")
    if not isinstance(steps, int):
        found = {row["steps"] for row in _rows(record) if isinstance(row.get("steps"), int)}
        steps = found.pop() if len(found) == 1 else None
    return "" if steps is None else f"{steps} step{'s' if steps != 1 else ''}"


def _rows(record: Record) -> list[dict[str, Any]]:
    return [document_of(row) for row in record.rows]


def warnings_of(header: Header) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if header.status is not Status.MEASURED:
        found.append(f"{header.status}: {header.reason}")
    if header.quick:
        found.append("quick run: few samples, small cases")
    if header.machine.busy:
        found.append(f"the machine was busy with other work{_share(header.machine)}")
    if str(header.commit).endswith("-dirty"):
        found.append("measured on a working tree with uncommitted changes")
    return found


def _share(machine: Machine) -> str:
    share = machine.others_share
    return "" if share is None else f" ({share:.0%} of its processors' time)"
