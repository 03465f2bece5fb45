"""One self-contained HTML page and PNG plots from the records.

    python -m benchmarks report [--results FOLDER] [--out FOLDER]

Of each benchmark the page shows the newest full record of each machine, else the newest quick one,
with what was skipped or refused and why. A benchmark without a record is listed as not measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.record import records
from benchmarks.report.page import Section, page
from benchmarks.report.plots import PLOTS, quality_plot
from benchmarks.report.targets import target_rows
from engines.bundle.files import write_atomic

ORDER = (
    "latency", "throughput", "scaling", "peers", "roofline", "kernels", "cubins", "build",
    "quality", "gpu",
)  # fmt: skip

Entry = Mapping[str, Any]


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--out", type=Path, default=Path("report"), help="folder to write")


def written(*, results: Path | None, out: Path, quick: bool) -> dict[str, Any]:
    """Write index.html and the plots; answers their names."""
    del quick  # a report is always the whole
    newest = {name: chosen(records(name, results)) for name in ORDER}
    # The quality is the shipped model's, which is the smallest; so must be the speed beside it.
    latency = min(newest["latency"], key=_weights, default=None)
    sections, files = [], []
    for name, entries in newest.items():
        for number, entry in enumerate(entries):
            png = plot_of(name, entry, latency)
            if png is not None:
                files.append(f"{name}.png" if not number else f"{name}-{number}.png")
                write_atomic(out / files[-1], png)
            sections.append(Section(name, entry, png))
    missing = [name for name, entries in newest.items() if not entries]
    write_atomic(out / "index.html", page(sections, missing, target_rows(newest)).encode())
    print(f"{out / 'index.html'}: {len(sections)} records, {len(files)} plots")
    return {"page": str(out / "index.html"), "plots": files, "not_measured": missing}


def chosen(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest full record of each machine, model and provider, latest first.

    A quick one only where no other is. Models are told apart by the size of their weights.
    """
    best: dict[str, dict[str, Any]] = {}
    for entry in entries:
        machine = entry["machine"]
        names = (machine.get("cpu"), machine.get("cpus"), machine.get("gpu"))
        key = f"{names} {_weights(entry)} {entry['facts'].get('provider')}"
        known = best.get(key)
        if known is None or known["quick"] or not entry["quick"]:
            best.pop(key, None)
            best[key] = entry
    return list(best.values())[::-1]


def _weights(entry: Entry) -> int:
    """Bytes of the model's weights; 0 where a record has no model."""
    return int(entry["facts"].get("weights_fp32_nbytes", 0))


def plot_of(name: str, entry: Entry, latency: Entry | None) -> bytes | None:
    """A record's plot, if its benchmark has one and something was measured."""
    if name == "quality":
        return quality_plot(entry, latency)
    return PLOTS[name](entry) if name in PLOTS else None
