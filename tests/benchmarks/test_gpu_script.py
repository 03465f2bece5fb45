"""The GPU script: its order and its time, what it keeps, and all of it on the doubles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.device import kernels, opened
from benchmarks.measures import device, gpu, throughput
from benchmarks.measures.gpu import GpuOptions, Part
from benchmarks.measures.throughput import Point, ThroughputOptions
from benchmarks.pictures.start_up import Drawing
from benchmarks.schema.gpu import (
    CallRow,
    CheckRow,
    DeviceRecord,
    FusionRow,
    GpuFacts,
    GpuRecord,
    MemoryRow,
    PictureRow,
    PointRow,
    StageRow,
)
from benchmarks.schema.record import Status
from benchmarks.schema.results import keep, records_of, recover
from benchmarks.schema.throughput import ThroughputRow
from engines.bundle.folder import KERNELS_FOLDER
from engines.engine import Provider
from engines.errors import RequestError
from engines.providers import GPU_PROVIDERS
from engines.system.processes import Ended
from tests.benchmarks.made_up import header
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.doubles.host_engine import HostProvider
from tests.runtime.gpu.double import with_kernels

FACTS = {"name": "Made-up GPU"}


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_kernels(golden_bundle, tmp_path_factory.mktemp("script"))


@pytest.fixture
def driver(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaDriver]:
    """A machine with a GPU on which TensorRT runs and nothing else does; all of it doubles."""
    driver = cuda_driver(bundle / KERNELS_FOLDER)

    def on_double(opened: Any, *_: Any) -> HostProvider:
        return HostProvider(opened, driver)

    rows = {
        provider: replace(row, open=on_double) if provider is Provider.TENSORRT else row
        for provider, row in GPU_PROVIDERS.items()
    }
    monkeypatch.setattr(opened, "GPU_PROVIDERS", rows)
    for module in (opened, kernels):
        monkeypatch.setattr(module, "driver", lambda _: driver)
    for module in (device, gpu):
        monkeypatch.setattr(module, "gpu_facts", lambda: FACTS)
    monkeypatch.setattr("benchmarks.device.calls.IMAGES", (1, 2))
    yield driver
    assert not +driver.open


def typed(bundle: Path, results: Path, what: str, *words: str) -> int:
    fixed = f"device --quick --bundle {bundle} --results {results} --size-px 64 --steps 4"
    return command_line.main([*fixed.split(), "--pictures", "1", "--what", what, *words])


def rows_of(results: Path) -> list[object]:
    record = records_of("device", results)[-1]
    assert isinstance(record, DeviceRecord)
    return list(record.rows)


@pytest.mark.slow
@pytest.mark.usefixtures("driver")
def test_a_dry_run_goes_through_all_of_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def in_this_process(options: GpuOptions, words: Sequence[str], limit_s: float) -> Ended:
        started.append(" ".join(words))
        small = ["--steps", "4", "--pictures", "1"] if words[0] == "device" else []
        code = command_line.main([*words, *small, "--results", str(tmp_path)])
        return Ended(code=code, printed="", last_words="it says why" if code else "")

    monkeypatch.setattr(gpu, "run_part", in_this_process)
    words = f"gpu --quick --bundle {bundle} --results {tmp_path} --size-px 64"
    assert command_line.main(words.split()) == 0
    (record,) = records_of("gpu", tmp_path)
    assert isinstance(record, GpuRecord)
    # Of what needs PyTorch's CUDA build, nothing runs here; the rest does.
    assert [row.status for row in record.rows] == [
        Status.MEASURED, Status.FAILED, Status.MEASURED, Status.FAILED, *[Status.MEASURED] * 3,
        *[Status.FAILED] * 2,
    ]  # fmt: skip
    assert [words.split()[0] for words in started] == [
        "device", "kernels", *["device"] * 5, "peers", "peers"
    ]  # fmt: skip
    found = [row for each in records_of("device", tmp_path) for row in each.rows]
    for kind in (CheckRow, StageRow, PictureRow, CallRow, FusionRow, MemoryRow):
        assert any(isinstance(row, kind) for row in found), kind
    stages = {row.stage: row.steps for row in found if isinstance(row, StageRow)}
    assert stages == {"scene": 2, "fusion": 1, "subject": 1}
    # What does not run here is told beside, with its reason.
    points = [row for row in found if isinstance(row, PointRow)]
    assert any("has no U-Nets in 8 bits" in row.reason for row in points)
    left = {row.provider: row for row in points if "in 8 bits" not in row.reason}
    assert set(left) == {"tensorrt-rtx", "onnxruntime-cuda"}
    assert all(row.reason for row in left.values())
    assert {(row.component, row.images) for row in found if isinstance(row, CallRow)} == {
        (component, images) for component in ("tdm_unet", "sdm_unet") for images in (1, 2)
    }


@pytest.mark.usefixtures("driver")
def test_a_point_that_the_plans_do_not_admit_leaves_the_others_be(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = HostProvider.open

    def admits_one(self: HostProvider, component: Any, shapes: Any) -> Any:
        if shapes["latents"][0] > 1:
            raise RequestError("there are plans for 1 image")
        return whole(self, component, shapes)

    monkeypatch.setattr(HostProvider, "open", admits_one)
    assert typed(bundle, tmp_path, "calls", "--provider", "tensorrt") == 0
    rows = rows_of(tmp_path)
    measured = [row for row in rows if isinstance(row, CallRow)]
    assert [(row.component, row.images) for row in measured] == [("tdm_unet", 1), ("sdm_unet", 1)]
    assert all(row.captured and row.p50_ms > 0 for row in measured)
    assert [(row.point, row.status) for row in rows if isinstance(row, PointRow)] == [
        ("tdm_unet, 2 images", "skipped"), ("sdm_unet, 2 images", "skipped")
    ]  # fmt: skip


def test_a_kernel_that_is_wrong_is_refused_by_its_name_and_the_others_are_told(
    bundle: Path, driver: CudaDriver, tmp_path: Path
) -> None:
    launch = driver.cuLaunchKernel

    def without_pixels(f: bytes, *arguments: Any) -> tuple[Any, ...]:
        return (0,) if f.endswith(b"pixels") else launch(f, *arguments)

    driver.cuLaunchKernel = without_pixels  # type: ignore[method-assign]
    assert typed(bundle, tmp_path, "kernels") == 1
    kept, refused = records_of("device", tmp_path)
    assert [row.status for row in kept.rows if isinstance(row, CheckRow)] == [
        *[Status.MEASURED] * 4, Status.FAILED
    ]  # fmt: skip
    assert refused.header.status is Status.REFUSED
    assert "pixels: " in str(refused.header.reason)


def test_nothing_that_could_be_measured_exits_with_1(
    bundle: Path, driver: CudaDriver, tmp_path: Path
) -> None:
    assert typed(bundle, tmp_path, "memory", "--provider", "onnxruntime-cuda") == 1
    assert records_of("device", tmp_path)[-1].header.status is Status.SKIPPED


def test_parts_run_within_their_share_and_what_is_left_over() -> None:
    now, asked = [0.0], []

    def run(words: Sequence[str], limit_s: float) -> Ended:
        asked.append((words[0], limit_s))
        now[0] += {"a": 10.0, "b": 70.0}.get(words[0], 5.0)
        code, last_words = (1, "broken") if words[0] == "a" else (0, "a warning")
        return Ended(code=code, printed="", last_words=last_words)

    wanted = {
        "first": Part(("a",), 0.3), "second": Part(("b",), 0.4), "third": Part(("c",), 0.3)
    }  # fmt: skip
    *_, rows = gpu.run_parts(wanted, 100.0, run, lambda: now[0])
    assert [(row.status, row.reason) for row in rows] == [
        ("failed", "broken"), ("measured", ""), ("measured", "")
    ]  # fmt: skip
    # The first leaves 20 s to the second, which takes 10 s more than it was given.
    assert [words for words, _ in asked] == ["a", "b", "c"]
    assert [limit_s for _, limit_s in asked] == pytest.approx([30, 60, 20])
    *_, rows = gpu.run_parts({"late": Part(("d",), 1.0)}, gpu.LEAST_S / 2, run, lambda: now[0])
    assert (rows[0].status, rows[0].reason) == ("skipped", "no time left of 5 s")


def test_all_parts_together_take_under_nine_minutes_and_come_in_their_order() -> None:
    found = gpu.parts(GpuOptions())
    assert sum(part.share for part in found.values()) == pytest.approx(1.0)
    # What ends a process may take as long again as the grace of one: see run_module.
    assert GpuOptions().budget_s < 9 * 60
    assert list(found) == [
        "kernels: correctness", "kernels: times beside eager and compiled PyTorch",
        "one step of each stage, one picture", "8 bits: infinities, distance, time",
        "one call with 1, 2, 4 and 8 images",
        "fusion side by side and one after the other", "memory", "PyTorch, eager",
        "PyTorch, compiled",
    ]  # fmt: skip


def test_the_gpu_script_types_only_words_that_the_command_line_knows(tmp_path: Path) -> None:
    for part in gpu.parts(GpuOptions(quick=True, size_px=512, bundle=tmp_path)).values():
        measure = command_line.measure_named(part.words[0])
        told = command_line.options_of(measure.options, list(part.words))
        assert type(told) is measure.options


def test_what_an_ended_part_had_measured_is_appended(tmp_path: Path) -> None:
    record = GpuRecord(header=header("gpu"), facts=GpuFacts(budget_s=1.0), rows=())
    keep(record, tmp_path)
    assert records_of("gpu", tmp_path) == []
    assert recover("gpu", tmp_path)
    assert records_of("gpu", tmp_path) == [record]
    assert not recover("gpu", tmp_path)


def test_a_point_of_throughput_that_fails_is_told_and_the_next_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(work: Drawing, processes: int, requests: int) -> ThroughputRow:
        if work.workload.images == 2:
            raise RequestError("there are plans for 1 image")
        return ThroughputRow(
            images=work.workload.images, processes=processes, threads_each=1, pictures=1,
            pictures_per_s=1.0, request_p50_ms=1.0, request_p99_ms=1.0, peak_rss_nbytes=1,
        )  # fmt: skip

    monkeypatch.setattr(throughput, "measured_point", measured)
    points = [Point(1, 1), Point(2, 1), Point(4, 1)]
    rows = list(throughput.measured_points(points, ThroughputOptions()))
    assert [(row.images, row.status) for row in rows] == [
        (1, "measured"), (2, "failed"), (4, "measured")
    ]  # fmt: skip
