"""The report as HTML: no script, no file beside it, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.harness.record import columns_of
from benchmarks.report.headings import heading, warnings_of
from benchmarks.report.quantities import label, shown, sound
from benchmarks.report.targets import Target
from benchmarks.schema.record import Header, Record
from benchmarks.schema.throughput import ThroughputRecord
from engines.bundle.records import document_of

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem;
       padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ccc;
     padding-top: 1rem; }
a { color: #0072b2; } h2 a { color: inherit; text-decoration: none; }
img { max-width: 100%; height: auto; }
nav ol { columns: 2 26rem; padding-left: 1.4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
th, td { padding: 0.25rem 0.6rem; text-align: right; vertical-align: top; overflow-wrap: anywhere; }
td.word, th.word { text-align: left; min-width: 6rem; } td.long { min-width: 14rem; }
th { border-bottom: 1px solid #888; } tr:nth-child(even) td { background: #f6f6f6; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0 1rem;
     font-size: 0.85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 0.3rem 0; }
.mark { background: #fff3cd; padding: 0.3rem 0.6rem; border-left: 4px solid #e69f00; }
@media (max-width: 45rem) {
  nav ol { columns: 1; }
  table, tbody, tr, td { display: block; } tr:first-child { display: none; }
  tr { border-top: 1px solid #888; padding: 0.3rem 0; }
  td, td.word, td.long { display: flex; justify-content: space-between; gap: 1rem; min-width: 0;
       padding: 0.1rem 0.3rem; text-align: right; }
  td::before { content: attr(data-label); color: #555; text-align: left; flex-shrink: 0; }
  td:empty { display: none; }
  dl { display: block; } dt { color: #555; margin-top: 0.3rem; }
}
"""
# Longer tables are folded.
_MOST_ROWS = 24


@dataclass(frozen=True)
class Section:
    """A benchmark's record and its plot."""

    record: Record
    png: bytes | None


def page(
    sections: Sequence[Section],
    missing: Sequence[str],
    targets: Sequence[Target],
    costs: Sequence[Mapping[str, Any]] = (),
    first: bytes | None = None,
) -> str:
    """The whole page. costs: rows of what pictures cost. first: the plot of quality against it."""
    parts = [
        _Part("quality-against-cost", "quality against cost", _first(first)),
        *([_Part("cost", "what pictures cost", _costs(costs))] if costs else []),
        *([_Part("targets", "targets", _targets(targets))] if targets else []),
        *(_section(number, section) for number, section in enumerate(sections, 1)),
    ]
    if missing:
        words = f"<p>No record of: {escape(', '.join(missing))}.</p>"
        parts.append(_Part("not-measured", "not measured", words))
    links = "".join(f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in parts)
    body = "".join(
        f'<h2 id="{part.anchor}"><a href="#{part.anchor}">{escape(part.title)}</a></h2>{part.body}'
        for part in parts
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Face-Diffuser benchmarks</title><style>{_STYLE}</style></head><body>"
        "<h1>Face-Diffuser benchmarks</h1>"
        "<p>Every figure was printed by the command beside it, on the machine beside it, after its "
        "reference check had passed. Nothing here was estimated. A percentile stands only where "
        "there are samples for it: p90 from 10 on, p99 from 100 on.</p>"
        f"<nav><ol>{links}</ol></nav>{body}</body></html>\n"
    )


@dataclass(frozen=True)
class _Part:
    """A heading, where links lead to it, and what stands below it."""

    anchor: str
    title: str
    body: str


def _first(png: bytes | None) -> str:
    if png is None:
        return (
            "<p>Not measured: no record has both. <code>python -m benchmarks quality --curve"
            "</code> takes it.</p>"
        )
    return _picture("quality against cost", png)


def _costs(rows: Sequence[Mapping[str, Any]]) -> str:
    return (
        "<p>Of the medians of the records below. Money needs <code>--price-per-hour</code>, energy "
        "<code>--watts</code> or a GPU's own power limit.</p>" + _table(rows)
    )


def _targets(targets: Sequence[Target]) -> str:
    rows = [
        {
            "target": each.target,
            "wanted": each.wanted,
            "measured": each.measured,
            "reached": "yes" if each.reached else "no",
            "why not": each.reason,
        }
        for each in targets
    ]
    return (
        "<p>What the toolkit set itself for a CPU with 2 cores at Stable Diffusion 1.5's size, "
        f"from the records below.</p>{_table(rows)}"
    )


def _section(number: int, section: Section) -> _Part:
    record = section.record
    parts = [*(_mark(text) for text in warnings_of(record.header))]
    if section.png is not None:
        parts.append(_picture(f"plot of {record.header.benchmark}", section.png))
    table = _table([_known_knees(record, document_of(row)) for row in record.rows])
    if len(record.rows) > _MOST_ROWS:
        title = f"{len(record.rows)} rows"
        table = f"<details><summary>{title}</summary>{table}</details>"
    parts += [table, _list(_where(record.header)), _details("facts", document_of(record.facts))]
    return _Part(f"{record.header.benchmark}-{number}", heading(record), "".join(parts))


def _known_knees(record: Record, row: dict[str, Any]) -> dict[str, Any]:
    """A throughput row whose knee is one: not where the curve was measured no further."""
    if isinstance(record, ThroughputRecord) and row.get("knee"):
        row["knee"] = (row["images"], row["processes"]) in record.knees()
    return row


def _picture(about: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{escape(about)}" src="data:image/png;base64,{data}"></p>'


def _where(header: Header) -> dict[str, str]:
    """Hardware, versions, clocks and command."""
    machine = document_of(header.machine)
    versions = {package: version for package, version in header.versions.items() if version}
    return {
        "command": header.command or "",
        "time": header.time,
        "commit": str(header.commit),
        "seeds": ", ".join(map(str, header.seeds)),
        "machine": _flat({k: v for k, v in machine.items() if v not in (None, [], {})}),
        "versions": _flat(versions),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each cell carries its column's name, which narrow screens show beside it."""
    if not rows:
        return ""
    rows = [sound(row) for row in rows]
    columns = columns_of(rows)
    words = {column for column in columns if any(isinstance(row.get(column), str) for row in rows)}
    long = {column for column in words if any(len(str(row.get(column) or "")) > 60 for row in rows)}
    kind = {
        each: ' class="word long"' if each in long else ' class="word"' if each in words else ""
        for each in columns
    }
    head = "".join(f"<th{kind[each]}>{escape(label(each))}</th>" for each in columns)
    lines = [
        "<tr>"
        + "".join(
            f'<td{kind[each]} data-label="{escape(label(each))}">'
            f"{escape(shown(each, row.get(each)))}</td>"
            for each in columns
        )
        + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _details(title: str, facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    return f"<details><summary>{escape(title)}</summary>{_list(_strings(facts))}</details>"


def _list(pairs: Mapping[str, str]) -> str:
    items = [f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs.items() if v]
    return f"<dl>{''.join(items)}</dl>"


def _strings(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as dotted names."""
    found: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _strings(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = shown(name, value)
    return found


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{label(name)} {value}" for name, value in _strings(values).items())


def _mark(text: str) -> str:
    return f'<p class="mark">{escape(text)}</p>'
