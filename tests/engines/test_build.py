"""`python -m engines.build`: one process per plan, progress, Ctrl-C, a crash, bad machines."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from engines import build as engines_build
from engines.bundle.folder import Bundle
from engines.bundle.lock import BundleBusyError, build_lock
from engines.bundle.plan_record import LibraryName
from engines.cli.progress import (
    JsonDisplay,
    PhaseEvent,
    Phases,
    TerminalDisplay,
    display_on,
    time_left,
)
from engines.contract import Component
from engines.errors import DriverTooOldError, PlanBuildError, ProviderUnavailableError
from engines.plans.bundle_plans import PlanRequest
from engines.plans.here import build_here, build_if_possible
from engines.tensorrt.libraries import TENSORRT, TENSORRT_RTX
from engines.tensorrt.library import check_wheels, load, version_of
from engines.tensorrt.machine import check_driver
from engines.tensorrt.target import plan_target
from tests.engines.conftest import SetUp
from tests.paths import ROOT


def test_the_command_builds_in_processes_of_their_own(
    small_copy: Path, double: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(small_copy), "--component", "fusion_mlp", "sdm_unet", "--json"]
    assert engines_build.main(arguments) == 0
    captured = capsys.readouterr()
    outcome = json.loads(captured.out)
    passes = [f"sdm_unet.native-{n}.sm_90" for n in ("1-pass", "2-passes", "3-passes")]
    assert outcome["built"] == ["fusion_mlp.fixed.sm_90", *passes]
    layers = outcome["plans"][passes[0]]["proofs"]["layers"]
    assert layers == {
        "told_by": "engine inspector", "layers": 10, "compute_layers": 2, "half_layers": 2
    }  # fmt: skip
    events = [json.loads(line) for line in captured.err.splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    assert {"plan", "phase", "share", "elapsed_s", "left_s"} <= set(progress[0])
    log = (small_copy / "build" / "plans" / f"{passes[1]}.log").read_text()
    assert "from the timing cache" in log
    Bundle.open(small_copy).verify()


def test_ctrl_c_cancels_within_a_second_and_the_next_build_goes_on(
    small_copy: Path, double: SetUp
) -> None:
    command = [sys.executable, "-m", "engines.build", str(small_copy)]
    command += ["--component", "fusion_mlp", "tdm_unet"]
    assert engines_build.main([str(small_copy), "--component", "fusion_mlp"]) == 0
    # Long enough that a build never ends before it is stopped.
    double(layer_s=10)
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    ) as build:
        assert build.stderr is not None
        for line in build.stderr:
            if '"plan": "tdm_unet.native.sm_90", "phase"' in line:
                break
        build.send_signal(signal.SIGINT)
        started = time.monotonic()
        rest = build.stderr.read()
        assert build.wait() == 1
        took_s = time.monotonic() - started
    assert took_s < 1
    assert "interrupted; the same command resumes" in rest.splitlines()[-1]
    Bundle.open(small_copy)
    double()
    assert engines_build.main(command[3:]) == 0
    assert len(Bundle.open(small_copy).manifest.plans) == 2


def test_a_build_that_is_killed_leaves_no_worker_and_the_next_one_goes_on(
    small_copy: Path, double: SetUp
) -> None:
    command = [sys.executable, "-m", "engines.build", str(small_copy)]
    command += ["--component", "fusion_mlp", "tdm_unet"]
    assert engines_build.main([str(small_copy), "--component", "fusion_mlp"]) == 0
    # Long enough that a build never ends before it is stopped.
    double(layer_s=10)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr is not None
        for line in build.stderr:
            if '"plan": "tdm_unet.native.sm_90", "phase"' in line:
                break
        build.kill()
    log = small_copy / "build" / "plans" / "tdm_unet.native.sm_90.log"
    deadline = time.monotonic() + 30
    while "Broken pipe" not in log.read_text() and "cancelled" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    assert not log.with_suffix(".plan").exists()
    assert Bundle.open(small_copy).verify() == 21
    double()
    assert engines_build.main(command[3:]) == 0
    assert log.read_text().count("from the timing cache") == 1
    assert len(Bundle.open(small_copy).manifest.plans) == 2


def test_a_worker_that_dies_is_told_with_its_log(
    small_copy: Path, double: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    double(fail={"fusion": "crash"})
    assert engines_build.main([str(small_copy), "--component", "fusion_mlp"]) == 1
    reason = capsys.readouterr().err.splitlines()[-1]
    assert "the building process ended with 139 without a word" in reason
    assert reason.endswith("fusion_mlp.fixed.sm_90.log")
    assert Bundle.open(small_copy).verify() == 19


def test_a_parser_error_reaches_the_last_line(
    small_copy: Path, double: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    double(fail={"tdm": "parser"})
    assert engines_build.main([str(small_copy), "--component", "tdm_unet"]) == 1
    assert "node 3 node_conv3 (Conv)" in capsys.readouterr().err.splitlines()[-1]


def test_a_forecast_alone_builds_nothing(
    small_copy: Path, double: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(small_copy), "--forecast-only", "--json", "--workspace-mib", "512"]
    assert engines_build.main(arguments) == 0
    expected = json.loads(capsys.readouterr().out)["expected_nbytes"]
    assert len(expected) == 8
    assert min(expected.values()) > 512 << 20
    assert not (small_copy / "plans").exists()


@pytest.mark.parametrize(
    "words", [["--profile", "huge"], ["--component", "unet"], ["--optimization-level", "9"]]
)
def test_wrong_words_exit_with_2(words: list[str], small_copy: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        engines_build.main([str(small_copy), *words])
    assert stopped.value.code == 2


def test_help_states_what_each_option_costs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        engines_build.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "how long TensorRT searches for fast kernels. Each level takes longer to build" in told
    assert "images: 1 to 4 images at the native size" in told


def test_two_builds_of_one_bundle_do_not_meet(
    small_copy: Path, double: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    with build_lock(small_copy):
        assert engines_build.main([str(small_copy)]) == 1
        with (
            pytest.raises(BundleBusyError, match="another build is writing"),
            build_lock(small_copy),
        ):
            pass
    assert "another build is writing" in capsys.readouterr().err.splitlines()[-1]


def test_a_machine_that_cannot_build_stops_at_onnx_in_one_sentence(
    small_copy: Path, double: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    double(no_gpu=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    stream = io.StringIO()
    request = PlanRequest()
    assert build_if_possible(small_copy, request, JsonDisplay(stream), engines_build.draw) is None
    (line,) = stream.getvalue().splitlines()
    text = json.loads(line)["text"]
    assert "stops at ONNX here, without TensorRT plans: cuda-bindings found no" in text
    assert text.endswith(f"python -m engines.build {small_copy}")


def test_a_machine_that_can_build_says_what_it_is(double: SetUp) -> None:
    target = plan_target()
    assert target.gpu is not None
    assert (target.gpu.architecture, target.gpu.name) == (90, "Double of a GPU")
    assert (target.gpu.cuda, target.version, target.architectures) == ("13.0", "11.4.0.106", (90,))


def test_a_driver_too_old_for_tensorrts_cuda_is_named(double: SetUp) -> None:
    double(driver_cuda=12080)
    with pytest.raises(ProviderUnavailableError, match=r"R590 or newer\), this one .*CUDA 12\.8"):
        plan_target(LibraryName.TENSORRT)
    check_driver(TENSORRT, "10.16.1.11", 12080, ["tensorrt-cu12"])
    with pytest.raises(DriverTooOldError, match=r"TensorRT 10.*, or install TensorRT") as raised:
        check_driver(TENSORRT, "10.16.1.11", 12999, ["tensorrt-cu13"])
    assert raised.value.fix == 'pip install "tensorrt-cu12>=10.9,<11"'
    check_driver(TENSORRT, "10.16.1.11", 13000, ["tensorrt-cu13"])


@pytest.mark.parametrize("version", ["12.0.0.1", "10.8.0.43", "8.6.1", "dev"])
def test_tensorrt_of_another_version_names_both(version: str, double: SetUp) -> None:
    double(version=version)
    with pytest.raises(ProviderUnavailableError, match=rf"10\.9 to 11\.x, found {version}"):
        load(TENSORRT)


def test_missing_tensorrt_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ProviderUnavailableError, match=r'pip install "face-diffuser\[tensorrt\]"'):
        load(TENSORRT)


def test_wheels_of_two_cuda_versions_are_refused() -> None:
    check_wheels(["tensorrt", "tensorrt_cu13", "tensorrt-cu13-libs", "numpy"], TENSORRT)
    with pytest.raises(ProviderUnavailableError, match="tensorrt_cu12_libs, tensorrt_cu13"):
        check_wheels(["tensorrt_cu13", "tensorrt-cu12-libs"], TENSORRT)


def test_versions_are_read_by_number() -> None:
    assert version_of("10.16.1.11") == (10, 16) > version_of("10.9.0")
    assert version_of("unknown") == (0, 0)


def test_both_libraries_may_be_installed_side_by_side() -> None:
    both = ["tensorrt", "tensorrt_cu12", "tensorrt_cu12_libs", "tensorrt_rtx_cu13"]
    check_wheels(both, TENSORRT)
    check_wheels(both, TENSORRT_RTX)
    check_driver(TENSORRT, "10.16.1.11", 12080, both)
    # There is none for CUDA 12 to install instead.
    with pytest.raises(
        DriverTooOldError, match=r"RTX 1\.7.* CUDA 13.*update the driver$"
    ) as raised:
        check_driver(TENSORRT_RTX, "1.7.1.116", 12080, both)
    assert raised.value.fix is None
    with pytest.raises(ProviderUnavailableError, match="TensorRT for RTX wheels of two"):
        check_wheels(["tensorrt_rtx_cu12", "tensorrt-rtx-cu13"], TENSORRT_RTX)


def _event(
    kind: Literal["start", "step", "finish"], phase: str, parent: str | None = None, number: int = 0
) -> PhaseEvent:
    return PhaseEvent(kind=kind, phase=phase, parent=parent, number=number)


def test_progress_folds_nested_phases_and_never_goes_back() -> None:
    phases = Phases()
    shares = []
    for event in (
        _event("start", "build", None, 4),
        _event("step", "build", None, 0),
        _event("start", "timing", "build", 2),
        _event("step", "timing", None, 0),
        _event("finish", "timing"),
        _event("step", "build", None, 1),
        _event("finish", "build"),
        _event("start", "compare", None, 2),
    ):
        phases.take(event)
        shares.append(phases.share())
    assert shares == [0, 0.25, 0.25, 0.375, 0.375, 0.5, 1, 0]


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    stream = io.StringIO()
    display = TerminalDisplay(stream)
    display.start("tdm_unet", 2, 6)
    display.event(_event("start", "build", None, 4))
    display._drawn = 0.0
    display.event(_event("step", "build", None, 1))
    assert "[2/6] tdm_unet ############" in stream.getvalue()
    assert " 50% 0 s left build" in stream.getvalue()
    display.end()
    assert stream.getvalue().endswith("\r\x1b[K"), "an error's reason begins a line"
    assert time_left(0.25, 60) == "3 min 00 s left"
    assert isinstance(display_on(stream), JsonDisplay)


def test_a_library_that_is_silent_gets_the_time_that_has_gone_and_no_share() -> None:
    stream = io.StringIO()
    display = TerminalDisplay(stream)
    display.start("tdm_unet", 2, 7, shares=False)
    for event in (_event("start", "build", None, 4), _event("step", "build", None, 3)):
        display._drawn = 0.0
        display.event(event)
    display._started -= 75
    display._drawn = 0.0
    display.event(PhaseEvent(kind="tick"))
    assert stream.getvalue().endswith("[2/7] tdm_unet 1 min 15 s build")
    assert "%" not in stream.getvalue() and "left" not in stream.getvalue()
    stream = io.StringIO()
    lines = JsonDisplay(stream)
    lines.start("tdm_unet", 2, 7, shares=False)
    for phase in ("build", "tactics", "refit"):
        lines.event(_event("start", phase, None, 4))
    for gone_s in (1, 9, 1, 1):
        lines._started -= gone_s
        lines.event(PhaseEvent(kind="tick"))
    told = [json.loads(line) for line in stream.getvalue().splitlines()][1:]
    assert [(each["phase"], round(each["elapsed_s"])) for each in told] == [
        ("refit", 1), ("refit", 11),
    ], "no line for each phase, one after a second and then every ten"  # fmt: skip
    assert all(set(each) == {"event", "plan", "phase", "elapsed_s"} for each in told)


def test_errors_of_a_worker_keep_their_class(small_copy: Path, double: SetUp) -> None:
    double(fail={"vae": "nothing"})
    target, request = plan_target(), PlanRequest(components=(Component.VAE_DECODER,))
    with pytest.raises(PlanBuildError, match="Could not find any implementation"):
        display = JsonDisplay(io.StringIO())
        build_here(small_copy, target, request, display, engines_build.draw)
