"""Records that nobody measured, to draw reports from; marked as such where they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.workload import Workload
from benchmarks.peers.work import WorkKind
from benchmarks.pictures.record import PresetRow, PresetsFacts, PresetsRecord
from benchmarks.schema.facts import Agreement, Peaks
from benchmarks.schema.latency import (
    Kind,
    LatencyFacts,
    LatencyRecord,
    LatencyRow,
    ProviderLatency,
    ProviderSkipped,
    StartFacts,
)
from benchmarks.schema.peers import (
    ComparedPeer,
    MeasuredPeer,
    PeersFacts,
    PeersRecord,
    UnmeasuredPeer,
)
from benchmarks.schema.quality import Chance, QualityFacts, QualityRecord, QualityRow
from benchmarks.schema.record import (
    SCHEMA_VERSION,
    Header,
    Machine,
    NotMeasured,
    Record,
    Status,
)
from benchmarks.schema.roofline import RooflineFacts, RooflineRecord, RooflineRow
from benchmarks.schema.scaling import (
    Axis,
    LineFit,
    PowerFit,
    ScalingFacts,
    ScalingRecord,
    ScalingRow,
)
from benchmarks.schema.throughput import ThroughputFacts, ThroughputRecord, ThroughputRow
from engines.contract import Component

MARK = "made up for a test"
AGREEMENT = Agreement(0.0, 1e-3)


def header(name: str, **changes: Any) -> Header:
    """The header of a record of the present schema."""
    fields: dict[str, Any] = {
        "benchmark": name,
        "schema_version": SCHEMA_VERSION,
        "status": Status.MEASURED,
        "reason": None,
        "time": "2000-01-01T00:00:00+00:00",
        "commit": MARK,
        "command": f"python -m benchmarks {name}",
        "machine": Machine(cpu=MARK, cpus=2, busy=False, others_share=0.0),
        "versions": {"torch": MARK},
        "seeds": (1,),
        "quick": False,
    }
    return Header(**(fields | changes))


def not_measured(name: str, status: Status, reason: str) -> NotMeasured:
    return NotMeasured(header=header(name, status=status, reason=reason))


def bundle_facts(native_px: int = 128, weights_fp32_nbytes: int = 2**24) -> dict[str, Any]:
    return {
        "precision": "fp16", "native_px": native_px, "weights_fp32_nbytes": weights_fp32_nbytes,
        "licenses": (MARK,), "threads": 2,
    }  # fmt: skip


def provider_latency(**changes: Any) -> ProviderLatency:
    start: dict[str, Any] = {
        "starts": 1, "import_s": 0.1, "open_s": 0.2, "first_picture_s": 0.3,
        "second_picture_s": 0.2, "peak_rss_open_nbytes": 2.0**29, "peak_rss_nbytes": 2.0**30,
        "peak_rss_over_weights": 1.5,
    }  # fmt: skip
    return ProviderLatency(
        agreement=AGREEMENT,
        host_share={"fusion": 0.01},
        gpu_nbytes=None,
        start=StartFacts(**(start | changes)),
    )


def latency_of(
    rows: Sequence[LatencyRow | ProviderSkipped] = (),
    providers: dict[str, ProviderLatency] | None = None,
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> LatencyRecord:
    """facts, changes: of the bundle's facts and of the header."""
    return LatencyRecord(
        header=header("latency", **changes),
        facts=LatencyFacts(
            **bundle_facts(**(facts or {})), workload=Workload(), providers=providers or {}
        ),
        rows=tuple(rows),
    )


def latency() -> LatencyRecord:
    parts: dict[tuple[Kind, str], float] = {
        ("picture", "pipeline"): 21.0, ("picture", "encode"): 1.0, ("picture", "unet"): 17.5,
        ("picture", "decode"): 2.0, ("stage", "scene"): 5.0, ("stage", "fusion"): 7.0,
        ("stage", "subject"): 6.0, ("component", "tdm_unet"): 1.0, ("component", "sdm_unet"): 1.5,
    }  # fmt: skip
    rows = [
        LatencyRow(
            provider="onnxruntime-cpu", kind=kind, name=name,
            per_picture=7 if kind == "component" else 1, count=4, p50_ms=ms, p90_ms=ms,
            p99_ms=2 * ms, min_ms=ms, max_ms=ms, spread=0.0,
        )
        for (kind, name), ms in parts.items()
    ]  # fmt: skip
    skipped = ProviderSkipped(provider="tensorrt", reason="no NVIDIA GPU")
    return latency_of([*rows, skipped], {"onnxruntime-cpu": provider_latency()})


def throughput_row(images: int, processes: int, rate: float, *, knee: bool) -> ThroughputRow:
    return ThroughputRow(
        images=images, processes=processes, threads_each=1, pictures=4, pictures_per_s=rate,
        request_p50_ms=1.0, request_p99_ms=1.0, peak_rss_nbytes=1, knee=knee,
    )  # fmt: skip


def throughput() -> ThroughputRecord:
    rows = (
        throughput_row(1, 1, 1.0, knee=False),
        throughput_row(2, 1, 1.5, knee=True),
        throughput_row(4, 1, 1.5, knee=False),
        throughput_row(1, 2, 1.2, knee=True),
    )
    facts = ThroughputFacts(
        **bundle_facts(), provider="onnxruntime-cpu", steps=10, agreement=AGREEMENT
    )
    return ThroughputRecord(header=header("throughput"), facts=facts, rows=rows)


def presets() -> PresetsRecord:
    figures = {"quality": (50, 165, None), "balanced": (20, 48, 2.5), "fast": (10, 24, 4.5)}
    rows = [
        PresetRow(
            preset=name, steps=steps, evaluations=evaluations, p50_ms=10.0 * evaluations,
            coders_ms=20.0, times_as_fast=ratio, low=ratio, high=ratio,
        )
        for name, (steps, evaluations, ratio) in figures.items()
    ]  # fmt: skip
    facts = PresetsFacts(
        **bundle_facts(), provider="onnxruntime-cpu", agreement=AGREEMENT, size_px=512, people=2,
        rounds=3,
    )  # fmt: skip
    return PresetsRecord(header=header("presets"), facts=facts, rows=tuple(rows))


def scaling_row(axis: Axis, value: int, ms: float) -> ScalingRow:
    return ScalingRow(axis=axis, value=value, p50_ms=ms, flop=int(10 * ms), gflop_per_s=1.0)


def scaling() -> ScalingRecord:
    rows = (
        scaling_row("steps", 1, 10.0),
        scaling_row("steps", 2, 20.0),
        scaling_row("size_px", 64, 10.0),
        scaling_row("size_px", 128, 45.0),
    )
    line = LineFit(intercept_ms=0.0, slope_ms=10.0, r2=1.0, intercept_flop=0.0, slope_flop=100.0)
    facts = ScalingFacts(
        **bundle_facts(), provider="onnxruntime-cpu", base=Workload(), pictures=2,
        agreement=AGREEMENT,
        fits={"steps": line, "size_px": PowerFit(power_of_ms=2.2, power_of_flop=2.2)},
    )  # fmt: skip
    return ScalingRecord(header=header("scaling"), facts=facts, rows=rows)


def peers_of(times_as_long: dict[str, float], *, size_px: int = 512, **changes: Any) -> PeersRecord:
    """This toolkit, peers that were compared with it, and one that was refused."""
    common: dict[str, Any] = {
        "work": WorkKind.STEP, "steps": 1, "size_px": size_px, "threads": 2, "rounds": 3,
    }  # fmt: skip
    figures: dict[str, Any] = {
        "relative_l2": 0.0, "bound": 2e-2, "p50_ms": 1.0, "spread": 0.0, "load_s": 1.0,
        "peak_rss_nbytes": 1, "gpu_nbytes": None,
    }  # fmt: skip
    compared = [
        ComparedPeer(
            **common, **figures, peer=name, against="this toolkit", against_p50_ms=1.0,
            times_as_long=ratio, low=ratio - 0.1, high=ratio + 0.1,
        )
        for name, ratio in times_as_long.items()
    ]  # fmt: skip
    ours = MeasuredPeer(**common, **figures, peer="this toolkit")
    refused = UnmeasuredPeer(**common, peer="OpenVINO bf16", status=Status.REFUSED, reason=MARK)
    facts = PeersFacts(
        **bundle_facts(), provider="onnxruntime-cpu", bound=2e-2, rounds=3, device="cpu"
    )
    return PeersRecord(
        header=header("peers", **changes), facts=facts, rows=(ours, *compared, refused)
    )


def peers() -> PeersRecord:
    return peers_of({"eager fp32": 1.3})


def peaks(flop_per_s: float = 1e11, bytes_per_s: float = 1e10) -> Peaks:
    return Peaks(
        flop_per_s={"fp32": flop_per_s}, bytes_per_s=bytes_per_s, side=1024, peak_rss_nbytes=1
    )


def roofline() -> RooflineRecord:
    row = RooflineRow(
        component=Component.TDM_UNET, rows=2, p50_ms=1.0, gflop=1.0, gflop_per_s=50.0,
        share_of_matrix_peak=0.5, least_mb=1.0, unfused_mb=2.0, least_gb_per_s=1.0,
        share_of_memory_peak=0.1, flop_per_byte=100.0, roof_ms=0.5, share_of_roof=0.5,
    )  # fmt: skip
    facts = RooflineFacts(**bundle_facts(), agreement=AGREEMENT, peaks=peaks())
    return RooflineRecord(header=header("roofline"), facts=facts, rows=(row,))


def quality_row(name: str, identity: float, prompt: float) -> QualityRow:
    """Intervals of 0.06, and means of one person and two that are 0.02 apart."""
    return QualityRow(
        row=name, pictures=7,
        identity=identity, identity_95=(identity - 0.03, identity + 0.03),
        identity_by_people=(identity + 0.01, identity - 0.01),
        scene=0.5, scene_95=(0.47, 0.53), pose=0.5, people=0.5,
        prompt=prompt, prompt_95=(prompt - 0.03, prompt + 0.03),
        prompt_by_people=(prompt + 0.01, prompt - 0.01),
        identity_gain_95=(-0.12, -0.08), prompt_gain_95=(-0.01, 0.11),
    )  # fmt: skip


def quality_of(
    rows: Sequence[QualityRow], accuracy: dict[str, float], **changes: Any
) -> QualityRecord:
    facts = QualityFacts(
        steps=20,
        chance=Chance(identity=0.31, scene=0.1),
        probe_accuracy=accuracy,
        probe_accuracy_through_vae=accuracy,
        full_method_accuracy=accuracy,
        fp16_fp32_mean_difference=0.001,
        bfloat16_mean_difference=0.002,
    )
    return QualityRecord(header=header("quality", **changes), facts=facts, rows=tuple(rows))


def quality() -> QualityRecord:
    scores = {"full method": (0.5, 0.9), "10 steps": (0.4, 0.9), "SDM alone": (0.6, 0.4)}
    rows = [quality_row(name, identity, prompt) for name, (identity, prompt) in scores.items()]
    return quality_of(rows, {"skin": 0.9})


ALL = (latency, throughput, presets, scaling, peers, roofline, quality)


def without_measured_rows() -> list[Record]:
    """One of each kind in which nothing was measured."""
    skipped = (ProviderSkipped(provider="tensorrt", reason="no NVIDIA GPU"),)
    nothing = [latency_of(skipped)]
    return [*nothing, *(not_measured(make.__name__, Status.SKIPPED, MARK) for make in ALL[1:])]
