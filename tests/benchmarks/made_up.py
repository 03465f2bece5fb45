"""Records that nobody measured, to draw reports from; marked as such where they are shown."""

from __future__ import annotations

from typing import Any

MARK = "made up for a test"


def entry(name: str, rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A record of the present schema."""
    return {
        "benchmark": name,
        "schema_version": 2,
        "status": "measured",
        "reason": None,
        "time": "2000-01-01T00:00:00+00:00",
        "commit": MARK,
        "command": f"python -m benchmarks {name}",
        "machine": {"cpu": MARK, "cpus": 2, "gpu": None, "busy": False, "others_share": 0.0},
        "versions": {"torch": MARK},
        "seeds": [1],
        "facts": {},
        "quick": False,
        "rows": rows,
    } | changes


def latency() -> dict[str, Any]:
    parts = {
        ("picture", "pipeline"): 21.0, ("picture", "encode"): 1.0, ("picture", "unet"): 17.5,
        ("picture", "decode"): 2.0, ("stage", "scene"): 5.0, ("stage", "fusion"): 7.0,
        ("stage", "subject"): 6.0, ("component", "tdm_unet"): 1.0, ("component", "sdm_unet"): 1.5,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "provider": "onnxruntime-cpu", "status": "measured", "kind": kind, "name": name,
            "per_picture": 7 if kind == "component" else 1, "count": 4, "p50_ms": ms,
            "p90_ms": ms, "p99_ms": 2 * ms, "min_ms": ms, "max_ms": ms, "spread": 0.0,
        }
        for (kind, name), ms in parts.items()
    ]  # fmt: skip
    rows.append({"provider": "tensorrt", "status": "skipped", "reason": "no NVIDIA GPU"})
    start = {"import_s": 0.1, "open_s": 0.2, "peak_rss_nbytes": 2**30}
    facts = {"threads": 2, "providers": {"onnxruntime-cpu": {"start": start}}}
    return entry("latency", rows, facts=facts)


def throughput() -> dict[str, Any]:
    rows = [
        {
            "images": images, "processes": processes, "status": "measured",
            "pictures_per_s": rate, "knee": knee,
        }
        for images, processes, rate, knee in (
            (1, 1, 1.0, False), (2, 1, 1.5, True), (4, 1, 1.5, False), (1, 2, 1.2, True),
        )
    ]  # fmt: skip
    return entry("throughput", rows)


def scaling() -> dict[str, Any]:
    rows = [
        {"axis": axis, "value": value, "status": "measured", "p50_ms": ms, "flop": int(ms * 10)}
        for axis, value, ms in (
            ("steps", 1, 10.0), ("steps", 2, 20.0), ("size_px", 64, 10.0), ("size_px", 128, 45.0),
        )
    ]  # fmt: skip
    fits = {
        "steps": {"intercept_ms": 0.0, "slope_ms": 10.0, "r2": 1.0},
        "size_px": {"power_of_ms": 2.2, "power_of_flop": 2.2},
    }
    return entry("scaling", rows, facts={"fits": fits})


def peers() -> dict[str, Any]:
    common = {"work": "step", "status": "measured", "against": "this toolkit"}
    rows: list[dict[str, Any]] = [
        {"work": "step", "peer": "this toolkit", "status": "measured", "p50_ms": 1.0},
        common | {"peer": "eager fp32", "times_as_long": 1.3, "low": 1.2, "high": 1.4},
        {"work": "step", "peer": "OpenVINO bf16", "status": "refused", "reason": MARK},
    ]
    return entry("peers", rows)


def roofline() -> dict[str, Any]:
    rows = [
        {
            "component": "tdm_unet", "status": "measured", "flop_per_byte": 100.0,
            "gflop_per_s": 50.0, "share_of_roof": 0.5,
        }
    ]  # fmt: skip
    peaks = {"flop_per_s": {"fp32": 1e11}, "bytes_per_s": 1e10}
    return entry("roofline", rows, facts={"peaks": peaks})


def quality() -> dict[str, Any]:
    rows = [
        {"row": "full method", "identity": 0.5, "prompt": 0.9},
        {"row": "SDM alone", "identity": 0.6, "prompt": 0.4},
    ]
    return entry("quality", rows)


ALL = (latency, throughput, scaling, peers, roofline, quality)
