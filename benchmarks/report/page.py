"""The report as HTML: no script, no file beside it, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.harness.record import cell, columns_of
from benchmarks.report.targets import Target
from benchmarks.schema.record import Header, Machine, Record, Status
from engines.bundle.records import document_of

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ccc;
     padding-top: 1rem; }
img { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85rem; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #888; } td:first-child, th:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; font-size: 0.85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.targets td:last-child { white-space: normal; text-align: left; min-width: 14rem; }
.mark { background: #fff3cd; padding: 0.3rem 0.6rem; border-left: 4px solid #e69f00; }
"""


@dataclass(frozen=True)
class Section:
    """A benchmark's record and its plot."""

    record: Record
    png: bytes | None


def page(sections: Sequence[Section], missing: Sequence[str], targets: Sequence[Target]) -> str:
    """The whole page."""
    body = _targets(targets) + "".join(_section(section) for section in sections)
    if missing:
        body += f"<h2>Not measured</h2><p>No record of: {escape(', '.join(missing))}.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Face-Diffuser benchmarks</title><style>{_STYLE}</style></head><body>"
        "<h1>Face-Diffuser benchmarks</h1>"
        "<p>Every figure was printed by the command beside it, on the machine beside it, after its "
        "reference check had passed. Nothing here was estimated.</p>"
        f"{body}</body></html>\n"
    )


def _targets(targets: Sequence[Target]) -> str:
    if not targets:
        return ""
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
        "<h2>targets</h2><p>What the toolkit set itself for a CPU with 2 cores at Stable Diffusion "
        "1.5's size, from the records below.</p>"
        f'<div class="targets">{_table(rows)}</div>'
    )


def _section(section: Section) -> str:
    record, name = section.record, escape(section.record.header.benchmark)
    parts = [f"<h2>{name}</h2>", *(_mark(text) for text in warnings_of(record.header))]
    if section.png is not None:
        data = base64.b64encode(section.png).decode()
        parts.append(f'<p><img alt="plot of {name}" src="data:image/png;base64,{data}"></p>')
    parts += [
        _table([document_of(row) for row in record.rows]),
        _list(_where(record.header)),
        _details("facts", document_of(record.facts)),
    ]
    return "".join(parts)


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
    if not rows:
        return ""
    columns = columns_of(rows)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = [
        "<tr>" + "".join(f"<td>{escape(cell(row.get(c)))}</td>" for c in columns) + "</tr>"
        for row in rows
    ]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


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
            found[prefix + name] = cell(value)
    return found


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _strings(values).items())


def _mark(text: str) -> str:
    return f'<p class="mark">{escape(text)}</p>'
