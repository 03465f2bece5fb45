"""The doctor's report: what is there, what is missing, what is in the way, what to type."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import NOISE_PREDICTORS
from engines.cuda.driver import CudaError
from engines.cuda.launcher import opened_library
from engines.errors import (
    DriverTooOldError,
    FaceDiffuserError,
    NotInstalledError,
    ProviderUnavailableError,
)
from engines.onnxruntime import library
from engines.onnxruntime.library import CUDA_PROVIDER
from runtime.doctor import __main__ as doctor
from runtime.doctor import machine
from tests.doubles import small_plans
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.runtime.gpu.double import with_kernels
from tests.vendor import tensorrt as double


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = with_kernels(golden_bundle, tmp_path_factory.mktemp("doctor"))
    small_plans.add_plans(path)
    return path


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no TensorRT, onnxruntime alone."""

    def no_driver() -> Any:
        raise ProviderUnavailableError("no working NVIDIA driver and GPU; check", fix="nvidia-smi")

    monkeypatch.setattr(machine, "driver", no_driver)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(doctor, "installed_packages", lambda: ["onnxruntime"])


@pytest.fixture
def server(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> CudaDriver:
    """A GPU and TensorRT, both doubles."""
    driver = cuda_driver(bundle / KERNELS_FOLDER)
    monkeypatch.setattr(machine, "driver", lambda: driver)
    monkeypatch.setitem(sys.modules, "tensorrt", double)
    monkeypatch.setattr(doctor, "installed_packages", lambda: ["onnxruntime", "tensorrt-cu13"])
    return driver


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and the last finding about each thing."""
    code = doctor.main([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (code == 0)
    return code, {each["about"]: each for each in document["findings"]}


@pytest.mark.usefixtures("laptop")
def test_a_laptop_is_well_and_draws_on_its_cpu(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = report(capsys, "--bundle", str(bundle))
    assert code == 0
    assert found["provider"]["text"] == "pictures are drawn on onnxruntime-cpu"
    assert (found["GPU"]["state"], found["GPU"]["fix"]) == ("note", "nvidia-smi")
    assert found["TensorRT"]["fix"] == 'pip install "face-diffuser[tensorrt]"'
    assert found["TensorRT"]["state"] == "note"


def test_a_server_with_plans_draws_on_tensorrt(
    bundle: Path, server: CudaDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = report(capsys, "--bundle", str(bundle))
    assert code == 0
    assert found["provider"]["text"] == "pictures are drawn on tensorrt"
    assert found["GPU"]["text"].startswith("Made-up GPU, sm_90, 8192 of 8192 MiB free")
    assert found["driver"]["text"].endswith("up to CUDA 13.1")
    assert found["TensorRT"]["text"] == small_plans.VERSION
    assert found["ONNX Runtime"]["fix"].endswith('pip install "onnxruntime-gpu[cuda,cudnn]>=1.25"')
    assert not +server.open


def test_what_the_bundle_lacks_for_this_gpu_has_its_command(
    golden_bundle: Path, bundle: Path, server: CudaDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    server.architecture = 120
    code, found = report(capsys, "--bundle", str(bundle))
    assert code == 0
    assert found["kernels"] == {
        "about": "kernels", "state": "note",
        "text": "this GPU is sm_120, and the bundle's kernels are for sm_90; build them for it "
        "with",
        "fix": f"python -m export.build --out {bundle}",
    }  # fmt: skip
    assert "this machine has sm_120" in found["plans"]["text"]
    assert found["plans"]["fix"] == f"python -m engines.build {bundle}"
    assert found["provider"]["text"] == "pictures are drawn on onnxruntime-cpu"


def test_a_driver_older_than_the_kernels_is_told_as_opening_tells_it(
    golden_bundle: Path, server: CudaDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = with_kernels(golden_bundle, tmp_path, toolkit="13.4")
    server.version = 12080
    code, found = report(capsys, "--bundle", str(newer))
    assert code == 1
    assert (found["kernels"]["state"], found["kernels"]["fix"]) == ("problem", "nvidia-smi")
    with (
        pytest.raises(DriverTooOldError) as raised,
        opened_library(newer / KERNELS_FOLDER, 90, server),
    ):
        pass
    assert found["kernels"]["text"] == raised.value.reason
    assert found["provider"]["text"] == "pictures are drawn on onnxruntime-cpu"


def test_bindings_that_are_newer_than_the_driver_are_told(
    server: CudaDriver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "version", lambda _: "13.5.0")
    assert "cuda-bindings" not in report(capsys)[1]
    server.version = 12040
    told = report(capsys)[1]["cuda-bindings"]
    assert (told["state"], told["fix"]) == ("note", 'pip install "cuda-bindings<13"')
    assert "for CUDA 13 (580 or newer), this one is for CUDA 12.4" in told["text"]


def test_an_onnx_runtime_that_needs_a_newer_driver_is_told_with_one_that_does_not(
    server: CudaDriver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = SimpleNamespace(
        __version__="1.31.1", cuda_version="13.0", get_available_providers=lambda: [CUDA_PROVIDER]
    )
    monkeypatch.setattr(library, "import_module", lambda _: newest)
    assert report(capsys)[1]["ONNX Runtime"]["state"] == "ok"
    server.version = 12080
    told = report(capsys)[1]["ONNX Runtime"]
    assert told["fix"] == 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.25,<1.27"'
    assert "built for CUDA 13" in told["text"]
    assert "(580 or newer), this one is for CUDA 12.8" in told["text"]


def test_too_little_gpu_memory_is_a_problem(
    bundle: Path, server: CudaDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    server.total_nbytes = 1 << 20
    code, found = report(capsys, "--bundle", str(bundle))
    assert code == 1
    assert found["plans"]["text"].endswith("more than is free")
    assert found["plans"]["fix"] == "nvidia-smi"


def test_gpu_memory_that_is_enough_in_low_memory_is_told(
    bundle: Path, server: CudaDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = {plan.spec.component: plan.built for plan in Bundle.open(bundle).manifest.plans}
    both = sum(plans[each].file.nbytes for each in NOISE_PREDICTORS)
    # The double's plans tell of a MiB to run each.
    in_turns = both + (1 << 20)
    for free, state in ((in_turns, "note"), (in_turns - 1, "problem")):
        server.total_nbytes = free
        _, found = report(capsys, "--bundle", str(bundle))
        assert f", in low memory {in_turns >> 20}: more than is free" in found["plans"]["text"]
        assert found["plans"]["state"] == state
    server.total_nbytes = sum(each.file.nbytes for each in plans.values()) + (2 << 20)
    assert report(capsys, "--bundle", str(bundle))[1]["plans"]["state"] == "ok"


def test_a_driver_older_than_tensorrts_cuda_is_a_problem(
    server: CudaDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    server.version = 12080
    code, found = report(capsys)
    assert code == 1
    assert "needs a driver for CUDA 13" in found["TensorRT"]["text"]
    assert found["TensorRT"]["fix"] == 'pip install "tensorrt-cu12>=10.9,<11"'


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("error", "state", "fix"),
    [
        (DriverTooOldError("in any words", fix="update it"), "problem", "update it"),
        (NotInstalledError("in any words", fix="install it"), "note", "install it"),
        (CudaError("in any words", status=999), "note", "nvidia-smi"),
    ],
)
def test_what_is_wrong_with_a_gpu_is_told_by_the_errors_class_whatever_its_words(
    error: FaceDiffuserError, state: str, fix: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def no_driver() -> Any:
        raise error

    monkeypatch.setattr(machine, "driver", no_driver)
    _, found = report(capsys)
    assert found["GPU"] == {"about": "GPU", "state": state, "text": "in any words", "fix": fix}


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("packages", "fix"),
    [
        (["onnxruntime", "onnxruntime-gpu"], "pip uninstall -y onnxruntime onnxruntime-gpu"),
        (["tensorrt-cu12-libs", "tensorrt-cu13-libs"], "pip uninstall -y tensorrt tensorrt_cu12"),
    ],
)
def test_packages_that_clash_are_a_problem_with_its_command(
    packages: list[str], fix: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "installed_packages", lambda: packages)
    code, found = report(capsys)
    assert code == 1
    assert found["packages"]["fix"].startswith(fix)


@pytest.mark.usefixtures("laptop")
def test_a_bundle_that_does_not_open_is_a_problem_and_the_reason_comes_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--bundle", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr()
    assert f"-> python -m export.build --out {tmp_path / 'none'}" in printed.out
    assert printed.err.splitlines()[-1].startswith("bundle: there is no bundle at")


@pytest.mark.usefixtures("laptop")
def test_nothing_that_can_draw_is_a_problem(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, found = report(capsys, "--bundle", str(bundle))
    assert code == 1
    assert found["provider"]["fix"] == 'pip install "face-diffuser[cpu]"'


def test_installed_packages_are_named_in_one_way() -> None:
    assert "onnxruntime" in machine.installed_packages()
    assert all("_" not in name for name in machine.installed_packages())
