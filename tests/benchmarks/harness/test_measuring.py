"""Whole benchmarks on the tiny bundle, in small; and what they refuse."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness import machine
from benchmarks.harness import record as harness_record
from benchmarks.harness.backends import CPU, opened_backend, why_not
from benchmarks.harness.model_source import SourceMismatchError, source_name
from benchmarks.harness.options import Options, SourceOptions
from benchmarks.harness.record import ReferenceMismatchError, header_of
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.workload import Workload
from benchmarks.measures import gpu, latency
from benchmarks.measures.gpu import GpuOptions
from benchmarks.measures.latency import LatencyOptions
from benchmarks.measures.throughput import measured_point
from benchmarks.pictures.start_up import Drawing, drawing
from benchmarks.pictures.times import timed_pictures
from benchmarks.schema.latency import LatencyRecord
from benchmarks.schema.record import Machine, Status
from benchmarks.schema.results import records_of
from engines.bundle.folder import Bundle
from engines.bundle.records import document_of, read
from tests.benchmarks import made_up
from tests.benchmarks.peers.test_peers import SOURCE

SMALL = Workload(steps=4, people=1, size_px=64)


def test_one_pictures_time_is_taken_apart_without_rest(golden_bundle: Path) -> None:
    with opened_backend(golden_bundle, CPU, 1) as backend:
        times = timed_pictures(backend, SMALL, pictures=2)
    samples = times.samples
    assert len(samples["picture", "pipeline"]) == 2
    # 4 steps: 2 of the scene, 1 of the fusion, 1 of the subject stage.
    assert len(samples["component", "tdm_unet"]) == 2 * 3
    assert len(samples["component", "sdm_unet"]) == 2 * 2
    for parts in (("fusion: TDM", "fusion: SDM", "fusion: SNF, guidance, scheduler"),):
        spent = np.sum([samples["step", part] for part in parts], axis=0)
        np.testing.assert_allclose(spent, samples["step", "fusion"], rtol=1e-9)
    for whole, encode, decode in zip(
        samples["picture", "pipeline"], samples["picture", "encode"], samples["picture", "decode"],
        strict=True,
    ):  # fmt: skip
        assert 0 < encode + decode < whole
    assert all(0 < share < 1 for stage in times.host_shares.values() for share in stage)


def test_a_bundle_that_draws_something_else_gets_no_speed(golden_bundle: Path) -> None:
    manifest = Bundle.open(golden_bundle).manifest
    reference = Reference(SOURCE.opened(), manifest)
    with opened_backend(golden_bundle, CPU, 1) as backend:
        assert reference.check(backend.face_diffuser).relative_l2 < 1e-4
        reference._latents = {side: 1.1 * kept for side, kept in reference._latents.items()}
        with pytest.raises(ReferenceMismatchError, match="no speed"):
            reference.check(backend.face_diffuser)


def test_a_refusal_is_recorded_without_figures_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusing(_: LatencyOptions) -> LatencyRecord:
        raise ReferenceMismatchError("it draws something else")

    monkeypatch.setattr(latency, "MEASURE", replace(latency.MEASURE, measure=refusing))
    assert command_line.main(["latency", "--quick", "--results", str(tmp_path)]) == 1
    assert "something else" in capsys.readouterr().err
    (record,) = records_of("latency", tmp_path)
    header = record.header
    assert (header.status, record.rows, header.quick) == (Status.REFUSED, (), True)
    assert header.reason == "it draws something else"


def test_a_package_that_is_not_installed_is_named_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("benchmarks.measures.report", "benchmarks.report.plots"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command_line.main(["report"]) == 1
    said = capsys.readouterr().err
    assert said == (
        "report needs matplotlib, which is not installed; type: "
        'pip install "face-diffuser[bench,cpu]"\n'
    )


def test_a_missing_module_of_our_own_is_a_defect_and_no_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.measures.report", raising=False)
    monkeypatch.setitem(sys.modules, "benchmarks.report.plots", None)
    with pytest.raises(ModuleNotFoundError, match=r"benchmarks\.report\.plots"):
        command_line.main(["report"])


def test_without_a_gpu_the_gpu_script_is_skipped_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "gpu_facts", lambda: None)
    assert command_line.main(["gpu", "--results", str(tmp_path)]) == 1
    assert "no NVIDIA GPU" in capsys.readouterr().err
    (record,) = records_of("gpu", tmp_path)
    assert record.header.status is Status.SKIPPED


@pytest.mark.slow
def test_a_part_of_the_gpu_script_uses_its_results_and_its_last_words_are_kept(
    tmp_path: Path,
) -> None:
    options = GpuOptions(json=True, results=tmp_path / "results")
    written = gpu.run_part(options, ["report", "--json", "--out", str(tmp_path / "report")], 60.0)
    assert (written.code, json.loads(written.printed)["plots"]) == (0, [])
    refused = gpu.run_part(options, ["nothing"], 60.0)
    assert refused.code == 2
    assert "invalid choice: 'nothing'" in refused.last_words


@pytest.mark.parametrize("name", list(command_line.BENCHMARKS))
def test_every_name_has_a_module_that_says_what_it_is_told_and_what_it_measures(name: str) -> None:
    measure = command_line.measure_named(name)
    assert issubclass(measure.options, Options)
    assert command_line.options_of(measure.options, [name]) == measure.options()


def test_a_quick_run_has_its_own_defaults_and_what_is_typed_wins() -> None:
    def told(*words: str) -> Options:
        return command_line.options_of(LatencyOptions, ["latency", *words])

    assert told() == LatencyOptions(steps=50, pictures=10, starts=3)
    assert told("--quick") == LatencyOptions(quick=True, steps=10, pictures=3, starts=1)
    assert told("--quick", "--steps", "7") == LatencyOptions(
        quick=True, steps=7, pictures=3, starts=1
    )


@pytest.mark.parametrize("words", ["--pictures 0", "--steps many", "--model other", "--nothing 1"])
def test_words_that_cannot_be_exit_with_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command_line.main(["latency", *words.split()])
    assert exited.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_throughput_counts_pictures_from_the_first_start_to_the_last_end(
    golden_bundle: Path,
) -> None:
    workload = Workload(steps=1, people=1, size_px=64, images=2)
    work = Drawing(bundle=golden_bundle, provider=CPU, threads=1, workload=workload)
    row = measured_point(work, processes=1, requests=2)
    assert (row.pictures, row.threads_each, row.status) == (4, 1, Status.MEASURED)
    # Two requests, one after the other, of two pictures each.
    assert row.pictures_per_s <= 4 / (2 * row.request_p50_ms / 1e3) * 1.01
    assert row.request_p50_ms <= row.request_p99_ms


def test_a_missing_gpu_is_skipped_hardware(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.harness.backends.gpu_facts", lambda: None)
    reasons = why_not()
    assert reasons.pop(CPU) is None
    assert reasons.pop("openvino") is None
    assert set(reasons.values()) == {"no NVIDIA GPU"}


def test_a_record_says_where_it_came_from() -> None:
    header = header_of("latency", Options(quick=True), gpu="a GPU", seeds=[7])
    document = document_of(header)
    assert read(type(header), json.loads(json.dumps(document, allow_nan=False))) == header
    assert document["schema_version"] == 2
    assert document["status"] == "measured"
    assert {"cpu", "cpus", "memory_nbytes", "gpu", "others_share", "busy", "isa"} <= set(
        document["machine"]
    )
    assert header.versions["torch"]
    assert (header.seeds, header.quick, header.machine.gpu) == ((7,), True, "a GPU")


def test_the_machine_is_busy_when_others_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "_AT_START", (100.0, 10.0, 0.0))
    # In 100 s, all four processors worked for 390 s, of which 380 s, then 300 s, were our own.
    monkeypatch.setattr(machine, "_spent_s", lambda: (490.0, 390.0, 100.0))
    found = machine.this_machine()
    assert (found.others_share, found.busy) == (0.025, False)
    monkeypatch.setattr(machine, "_spent_s", lambda: (490.0, 310.0, 100.0))
    found = machine.this_machine()
    assert (found.others_share, found.busy) == (0.225, True)


def test_what_this_process_takes_is_not_others_work() -> None:
    before = machine._spent_s()
    assert before is not None
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    after = machine._spent_s()
    assert after is not None
    assert after[0] - before[0] >= 0.25
    assert 0.25 <= after[1] - before[1] <= 0.5


def test_gpu_facts_come_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    answer = "Made-up GPU, 600.1, 81559 MiB, 700.00 W, 1980 MHz, 1980 MHz, 2619 MHz, Enabled"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = machine.gpu_facts()
    assert facts is not None
    assert (facts["name"], facts["driver_version"], facts["clocks.mem"]) == (
        "Made-up GPU", "600.1", "2619 MHz",
    )  # fmt: skip
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine.gpu_facts() is None


def test_a_bundle_of_an_unknown_checkpoint_wants_it_named(golden_bundle: Path) -> None:
    bundle = Bundle.open(golden_bundle)
    with pytest.raises(SourceMismatchError, match="--base"):
        source_name(SourceOptions(), bundle)
    named = source_name(read(SourceOptions, SOURCE.parts), bundle)
    assert named.opened().source_digests() == bundle.manifest.sources


def test_a_drawing_worker_tells_when_each_request_ran(golden_bundle: Path) -> None:
    draw = drawing(Drawing(bundle=golden_bundle, provider=CPU, threads=1, workload=SMALL))
    answer = draw(2)
    first, second = zip(answer.starts, answer.ends, strict=True)
    assert first[0] < first[1] <= second[0] < second[1]


@pytest.mark.slow
def test_latency_is_typed_measured_printed_and_recorded(
    golden_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"latency --quick --bundle {golden_bundle} --results {tmp_path} --threads 1"
    words += " --steps 4 --size-px 64 --pictures 2"
    for part, place in SOURCE.parts.items():
        words += f" --{part.replace('_', '-')} {place}"
    assert command_line.main(words.split()) == 0
    assert "| Pipeline |" in capsys.readouterr().out
    (record,) = records_of("latency", tmp_path)
    assert isinstance(record, LatencyRecord)
    assert {row.provider for row in record.measured()} == {CPU, "openvino"}
    facts = record.facts.providers[CPU]
    # The tiny model's float32 bundle: 2e-6 seen, the house's bound for a whole pipeline is 1e-3.
    assert facts.agreement.relative_l2 < facts.agreement.bound == 1e-3
    start = facts.start
    assert start is not None
    assert 0 < start.peak_rss_open_nbytes <= start.peak_rss_nbytes
    assert start.open_s > 0
    assert set(facts.host_share) == {"scene", "fusion", "subject"}


def test_a_busy_machine_is_said_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = replace(made_up.latency().header, machine=Machine(busy=True, others_share=0.4))
    found = replace(made_up.latency(), header=busy)
    monkeypatch.setattr(latency, "MEASURE", replace(latency.MEASURE, measure=lambda _: found))
    assert command_line.main(["latency", "--results", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    assert told == "warning: the machine was busy with other work (40% of its processors' time)\n"


def test_a_digest_of_code_is_of_every_file_and_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks" / "harness").mkdir(parents=True)
    (tmp_path / "engines" / "deep").mkdir(parents=True)
    monkeypatch.setattr(harness_record, "__file__", str(tmp_path / "benchmarks/harness/record.py"))
    digests = []
    for name, content in (("a.py", "1"), ("a.py", "2"), ("deep/b.py", "2"), ("c.txt", "2")):
        (tmp_path / "engines" / name).write_text(content)
        harness_record.code_digest.cache_clear()
        digests.append(harness_record.code_digest("engines"))
    harness_record.code_digest.cache_clear()
    assert len(set(digests)) == 3 and digests[2] == digests[3]
