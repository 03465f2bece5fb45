"""Latency as text: the table that users of NVIDIA's demo know, then the stages and the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.record import Status, table

Row = Mapping[str, Any]


def latency_text(entry: Mapping[str, Any]) -> str:
    """All of a latency record."""
    parts = []
    for provider in dict.fromkeys(row["provider"] for row in entry["rows"]):
        rows = [row for row in entry["rows"] if row["provider"] == provider]
        if rows[0]["status"] != Status.MEASURED:
            parts.append(f"{provider}: {rows[0]['status']}, {rows[0]['reason']}")
            continue
        start = entry["facts"]["providers"][provider].get("start")
        parts += [
            f"{provider}, {entry['facts']['threads']} threads",
            table(pipeline_rows(rows)),
            table([_shown(row) for row in rows]),
        ]
        if start is not None:
            parts.append(table([_start_row(start)]))
    return "\n\n".join(parts)


def pipeline_rows(rows: list[Row]) -> list[Row]:
    """Module and latency as in NVIDIA's demo/Diffusion, the stages below their sum."""
    found = {(row["kind"], row["name"]): row for row in rows}
    unet_calls = sum(
        row["per_picture"]
        for row in rows
        if row["kind"] == "component" and row["name"].endswith("_unet")
    )
    lines = [
        ("CLIP (text, photos, fusion MLP)", found.get(("picture", "encode"))),
        (f"UNet x {unet_calls:g}", found.get(("picture", "unet"))),
        *((f"- {stage}", found.get(("stage", stage))) for stage in ("scene", "fusion", "subject")),
        ("VAE", found.get(("picture", "decode"))),
        ("Pipeline", found.get(("picture", "pipeline"))),
    ]
    return [
        {"Module": name, "Latency (ms)": f"{row['p50_ms']:.2f}", "p99 (ms)": f"{row['p99_ms']:.2f}"}
        for name, row in lines
        if row is not None
    ]


def _shown(row: Row) -> Row:
    hidden = ("provider", "status", "min_ms", "max_ms")
    return {name: value for name, value in row.items() if name not in hidden}


def _start_row(start: Mapping[str, Any]) -> Row:
    gib = {name: value / 2**30 for name, value in start.items() if name.endswith("_nbytes")}
    shown = {name.replace("_nbytes", " GiB"): value for name, value in gib.items()}
    return {name: value for name, value in start.items() if name not in gib} | shown
