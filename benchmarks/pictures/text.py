"""Latency as text: the table that users of NVIDIA's demo know, then the stages and the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.record import table
from benchmarks.schema.latency import LatencyRecord, LatencyRow, ProviderSkipped, StartFacts
from engines.bundle.records import document_of


def latency_text(record: LatencyRecord) -> str:
    """All of a latency record."""
    parts = []
    for provider in dict.fromkeys(row.provider for row in record.rows):
        rows = [row for row in record.measured() if row.provider == provider]
        if rows:
            parts += [
                f"{provider}, {record.facts.threads} threads",
                table(pipeline_rows(rows)),
                table([_shown(row) for row in rows]),
            ]
            start = record.facts.providers[provider].start
            parts += [] if start is None else [table([_start_row(start)])]
        parts += [
            f"{provider}: {row.status}, {row.reason}"
            for row in record.rows
            if isinstance(row, ProviderSkipped) and row.provider == provider
        ]
    return "\n\n".join(parts)


def pipeline_rows(rows: Sequence[LatencyRow]) -> list[dict[str, str]]:
    """Module and latency as in NVIDIA's demo/Diffusion, the stages below their sum."""
    found = {(row.kind, row.name): row for row in rows}
    unet_calls = sum(
        row.per_picture for row in rows if row.kind == "component" and row.name.endswith("_unet")
    )
    lines = [
        ("CLIP (text, photos, fusion MLP)", found.get(("picture", "encode"))),
        (f"UNet x {unet_calls:g}", found.get(("picture", "unet"))),
        *((f"- {stage}", found.get(("stage", stage))) for stage in ("scene", "fusion", "subject")),
        ("VAE", found.get(("picture", "decode"))),
        ("Pipeline", found.get(("picture", "pipeline"))),
    ]
    return [
        {"Module": name, "Latency (ms)": f"{row.p50_ms:.2f}", "p99 (ms)": f"{row.p99_ms:.2f}"}
        for name, row in lines
        if row is not None
    ]


def _shown(row: LatencyRow) -> dict[str, Any]:
    hidden = ("provider", "status", "min_ms", "max_ms")
    return {name: value for name, value in document_of(row).items() if name not in hidden}


def _start_row(start: StartFacts) -> dict[str, float]:
    """Seconds as they are, bytes in GiB."""
    return {
        "starts": start.starts,
        "peak_rss_over_weights": start.peak_rss_over_weights,
        "import_s": start.import_s,
        "open_s": start.open_s,
        "first_picture_s": start.first_picture_s,
        "second_picture_s": start.second_picture_s,
        "peak_rss_open GiB": start.peak_rss_open_nbytes / 2**30,
        "peak_rss GiB": start.peak_rss_nbytes / 2**30,
    }
