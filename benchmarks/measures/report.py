"""One self-contained HTML page and PNG plots from the records.

    python -m benchmarks report [--results FOLDER] [--out FOLDER]

Of each benchmark the page shows the newest full record of each machine, else the newest quick one,
with what was skipped or refused and why. A benchmark without a record is listed as not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options, flag
from benchmarks.report.cost import Tariff, cost_rows
from benchmarks.report.page import Section, page
from benchmarks.report.plots import cost_plot, plot_of
from benchmarks.report.targets import target_rows
from benchmarks.schema.facts import BundleFacts, ProviderFacts
from benchmarks.schema.latency import LatencyRecord
from benchmarks.schema.record import Record
from benchmarks.schema.results import RECORDS, records_of
from engines.bundle.files import write_atomic

FIRST = "quality-against-cost.png"


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """A report is always the whole, quick or not."""

    out: Path = field(default=Path("report"), metadata=flag("folder to write"))
    price_per_hour: float | None = field(
        default=None, metadata=flag("what the machine costs an hour (default: not said)")
    )
    watts: float | None = field(
        default=None,
        metadata=flag("what the machine draws, as measured at its plug (default: not said)"),
    )


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """The page, its plots beside it by file name, and benchmarks without a record."""

    page: Path
    plots: tuple[str, ...]
    not_measured: tuple[str, ...]
    records: int


def written_report(options: ReportOptions) -> WrittenReport:
    """Write index.html and the plots."""
    newest = {name: chosen(records_of(name, options.results)) for name in RECORDS}
    # The quality is the shipped model's, which is the smallest; so must be the speed beside it.
    speeds = [record for record in newest["latency"] if isinstance(record, LatencyRecord)]
    speed = min(speeds, key=_weights_nbytes, default=None)
    sections, plots = [], []
    for name, found in newest.items():
        for number, record in enumerate(found):
            png = plot_of(record, speed)
            if png is not None:
                plots.append(f"{name}.png" if not number else f"{name}-{number}.png")
                write_atomic(options.out / plots[-1], png)
            sections.append(Section(record, png))
    missing = [name for name, found in newest.items() if not found]
    targets = target_rows([section.record for section in sections])
    costs = cost_rows(
        [section.record for section in sections],
        Tariff(per_hour=options.price_per_hour, watts=options.watts),
    )
    first = cost_plot([section.record for section in sections])
    if first is not None:
        plots.insert(0, FIRST)
        write_atomic(options.out / FIRST, first)
    index = options.out / "index.html"
    write_atomic(index, page(sections, missing, targets, costs, first).encode())
    return WrittenReport(
        page=index, plots=tuple(plots), not_measured=tuple(missing), records=len(sections)
    )


def chosen(records: Sequence[Record]) -> list[Record]:
    """The newest full record of each machine, model and provider, latest first.

    A quick one only where no other is. Models are told apart by the size of their weights.
    """
    best: dict[tuple[object, ...], Record] = {}
    for record in records:
        machine, facts = record.header.machine, record.facts
        provider = facts.provider if isinstance(facts, ProviderFacts) else None
        key = (machine.cpu, machine.cpus, machine.gpu, _weights_nbytes(record), provider)
        known = best.get(key)
        if known is None or known.header.quick or not record.header.quick:
            best.pop(key, None)
            best[key] = record
    return list(best.values())[::-1]


def _weights_nbytes(record: Record) -> int:
    """Bytes of the model's weights; 0 where a record has no model."""
    facts = record.facts
    return facts.weights_fp32_nbytes if isinstance(facts, BundleFacts) else 0


def report_text(report: WrittenReport) -> str:
    return f"{report.page}: {report.records} records, {len(report.plots)} plots"


MEASURE = Measure(options=ReportOptions, measure=written_report, text=report_text)
