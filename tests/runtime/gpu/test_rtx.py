"""Plans of TensorRT for RTX through a double of its run side: compared once, compiled once."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import runtime.backends
import runtime.gpu.backend
from engines import verify
from engines.bundle.files import file_record
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.plan_record import LibraryName
from engines.engine import Provider
from engines.errors import (
    BundleCorruptError,
    PlanMismatchError,
    PlanRefusedError,
    ProviderUnavailableError,
)
from engines.plans.plans_only import keep_plans_only
from engines.plans.proofs import on_gpu, parity
from engines.tensorrt import provider as tensorrt_provider
from engines.tensorrt.library import TensorRtError
from runtime import FaceDiffuser
from runtime.gpu.backend import GpuBackend
from tests.doubles import small_plans, tensorrt_execution, tensorrt_names
from tests.doubles import tensorrt_rtx as double
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.kernels.recorder import written_library
from tests.runtime.gpu.double import with_kernels
from tests.runtime.gpu.drawing import quiet_steps, relative_l2, small


@pytest.fixture
def bundle(golden_bundle: Path, tmp_path: Path) -> Path:
    """A bundle with plans for RTX cards, and kernels for sm_89."""
    path = with_kernels(golden_bundle, tmp_path)
    written_library(path / KERNELS_FOLDER, architecture=89, element_type="float32")
    small_plans.add_plans(path, version=double.__version__, library=LibraryName.TENSORRT_RTX)
    return path


@pytest.fixture
def machine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaDriver]:
    """A machine with an RTX card and TensorRT for RTX, both doubles."""
    driver = cuda_driver(bundle / KERNELS_FOLDER)
    driver.architecture = 89
    monkeypatch.setattr(runtime.backends, "driver", lambda _: driver)
    monkeypatch.setattr(on_gpu, "driver", lambda: driver)
    monkeypatch.setattr(runtime.gpu.backend, "GpuBackend", partial(GpuBackend, trials=1))
    for module in (tensorrt_provider, on_gpu):
        monkeypatch.setattr(module, "load", lambda _: double)
    monkeypatch.setattr(tensorrt_execution, "enqueue", driver.put)
    monkeypatch.setattr(tensorrt_execution, "take", driver.taken)
    monkeypatch.setattr(double, "capturable", [True])
    double.found_compiled.clear()
    yield driver
    gc.collect()  # of an error that was caught, and what it refers to
    assert not +driver.open


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the plans that are compared from now on."""
    names: list[str] = []
    real = parity.plan_parity

    def counted(engine: Any, gpu: Any, job: Any, progress: Any) -> Any:
        names.append(job.name)
        return real(engine, gpu, job, progress)

    monkeypatch.setattr(on_gpu, "plan_parity", counted)
    return names


def test_unproved_plans_are_compared_once_and_draw_what_the_cpu_draws(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = _counted(monkeypatch)
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        assert face_diffuser.provider == "tensorrt-rtx"
        face_diffuser.warm_up(height=64, width=64)
        with quiet_steps(machine):
            found = face_diffuser.generate(small())
    assert len(compared) == len(set(compared)) == 6
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as host:
        assert relative_l2(found.array, host.generate(small()).array) < 1e-4
    (card,) = (bundle / "cards").iterdir()
    assert len(list(card.glob("*.json"))) == 6
    double.found_compiled.clear()
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        face_diffuser.generate(small())
    assert len(compared) == 6, "what was found is recorded"
    assert all(double.found_compiled), "kernels are compiled once on a card"
    assert Bundle.open(bundle).verify() > 20


@pytest.mark.parametrize("capturable", [True, False])
def test_in_low_memory_plans_take_turns_and_are_compared_and_compiled_once(
    *, capturable: bool, bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = _counted(monkeypatch)
    monkeypatch.setattr(double, "capturable", [capturable])
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        expected = face_diffuser.generate(small(output_type="np")).array
        everything = machine.device.nbytes
    double.found_compiled.clear()
    machine.calls.clear()
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx", low_memory=True) as face_diffuser:
        for _ in range(2):
            found = face_diffuser.generate(small(output_type="np")).array
            assert relative_l2(found, expected) == 0
        assert machine.device.nbytes < everything // 5
    # A graph for each step, where the library says that there may be any.
    assert machine.calls.count("cuGraphLaunch") == (2 * 4 if capturable else 0)
    assert len(compared) == 6
    assert all(double.found_compiled)


def test_a_plan_that_drifts_on_the_card_draws_nothing(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORRT_DOUBLE", '{"drift": {"tdm_unet": 1.05}}')
    with (
        pytest.raises(PlanRefusedError, match=r"tdm_unet.*from ONNX Runtime .*export\.bisect"),
        FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser,
    ):
        face_diffuser.warm_up(height=64, width=64)


def test_steps_are_captured_only_where_the_library_says_so(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double, "capturable", [False])
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        expected = face_diffuser.generate(small()).array
        assert "cuGraphLaunch" not in machine.calls
    monkeypatch.setattr(double, "capturable", [True])
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        assert relative_l2(face_diffuser.generate(small()).array, expected) == 0
        assert "cuGraphLaunch" in machine.calls


def test_a_bundle_that_cannot_be_written_is_drawn_from_all_the_same(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_write(path: Path, content: bytes) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("engines.tensorrt.card_folder.write_atomic", no_write)
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        face_diffuser.generate(small())
    assert not (bundle / "cards").exists()


def test_comparing_on_purpose_is_recorded_in_the_manifest(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert verify.main([str(bundle), "--on-gpu"]) == 0
    assert capsys.readouterr().out.count("of the CPU (bound") == 6
    for plan in Bundle.open(bundle).manifest.plans:
        assert plan.built.parity is not None
        assert 0 <= plan.built.parity.relative_l2 <= plan.built.parity.bound
    compared = _counted(monkeypatch)
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        face_diffuser.warm_up(height=64, width=64)
    assert not compared


@pytest.mark.parametrize(
    ("architecture", "reason", "fix"),
    [
        (90, r"no code for sm_90; TensorRT has", "--library tensorrt"),
        (100, r"no code for sm_100; TensorRT has", "--library tensorrt"),
        (75, r"only where --architecture 75 was asked for", "--architecture 75"),
    ],
)
def test_a_card_that_it_does_not_serve_is_told_what_to_build(
    architecture: int, reason: str, fix: str, bundle: Path, machine: CudaDriver
) -> None:
    machine.architecture = architecture
    written_library(bundle / KERNELS_FOLDER, architecture=architecture, element_type="float32")
    with pytest.raises(PlanMismatchError, match=reason) as told:
        FaceDiffuser.open(bundle, provider="tensorrt-rtx")
    assert told.value.fix is not None and told.value.fix.endswith(fix)
    assert verify.main([str(bundle), "--on-gpu"]) == 1


def test_later_cards_are_served(bundle: Path, machine: CudaDriver) -> None:
    machine.architecture = 121
    written_library(bundle / KERNELS_FOLDER, architecture=121, element_type="float32")
    with FaceDiffuser.open(bundle) as face_diffuser:
        assert face_diffuser.provider == "tensorrt-rtx"
        assert list(face_diffuser.declined) == [Provider.TENSORRT]


def test_plans_of_another_release_name_both(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double, "__version__", "1.7.2.1")
    expected = r"built with TensorRT for RTX 1\.7\.1\.116, this machine has 1\.7\.2\.1"
    with pytest.raises(PlanMismatchError, match=expected):
        FaceDiffuser.open(bundle, provider="tensorrt-rtx")
    assert verify.main([str(bundle), "--on-gpu"]) == 1


@pytest.mark.parametrize("damage", [lambda plan: bytes(len(plan)), lambda plan: plan[:-1] + b"!"])
def test_a_plan_that_was_altered_is_known_before_the_library_sees_it(
    damage: Callable[[bytes], bytes],
    bundle: Path,
    machine: CudaDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", 0)
    plan = bundle / "plans" / "tdm_unet.small.rtx-1.7.plan"
    plan.write_bytes(damage(plan.read_bytes()))
    with (
        FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser,
        pytest.raises(BundleCorruptError, match=r"tdm_unet.*was altered.*engines\.build"),
    ):
        face_diffuser.warm_up(height=64, width=64)


@pytest.mark.parametrize("content", [b"not a plan" * 99, tensorrt_names.MAGIC + b"and no more"])
def test_what_the_library_does_not_take_is_told_in_our_words_with_a_gpu_there(
    content: bytes, bundle: Path, machine: CudaDriver
) -> None:
    plan = bundle / "plans" / "tdm_unet.small.rtx-1.7.plan"
    plan.write_bytes(content)
    manifest = Bundle.open(bundle, plans=False).manifest
    plans = [
        replace(each, built=replace(each.built, file=file_record(plan)))
        if each.spec.path.endswith(plan.name)
        else each
        for each in manifest.plans
    ]
    (bundle / "manifest.json").write_text(replace(manifest, plans=plans).to_json())
    with (
        FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser,
        pytest.raises(BundleCorruptError, match=r"does not take the plan tdm_unet.*damaged"),
    ):
        face_diffuser.warm_up(height=64, width=64)


def test_a_context_that_does_not_come_to_be_carries_the_librarys_reason(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double, "compiles", [False])
    expected = r"context of .*TensorRT for RTX said: the compiler found no space"
    with (
        FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser,
        pytest.raises(TensorRtError, match=expected),
    ):
        face_diffuser.warm_up(height=64, width=64)


@pytest.mark.parametrize("on_purpose", [True, False])
def test_kernels_that_are_compiled_as_a_plan_runs_are_kept_too(
    on_purpose: bool,  # noqa: FBT001
    bundle: Path,
    machine: CudaDriver,
) -> None:
    if on_purpose:
        assert verify.main([str(bundle), "--on-gpu"]) == 0
    else:
        with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
            face_diffuser.generate(small())
    (card,) = (bundle / "cards").iterdir()
    kept = [path.read_bytes() for path in card.glob("*.cache")]
    assert len(kept) == 6
    assert all(content.endswith(b"as it ran") for content in kept)


def test_plans_alone_draw_the_same_and_are_compared_with_nothing(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with FaceDiffuser.open(bundle, provider="tensorrt-rtx") as face_diffuser:
        expected = face_diffuser.generate(small()).array
    shutil.rmtree(bundle / "cards")
    compared = _counted(monkeypatch)
    assert "6 plans were executed on no GPU" in keep_plans_only(bundle)
    assert not (bundle / "onnx").exists()
    with FaceDiffuser.open(bundle) as face_diffuser:
        assert face_diffuser.provider == "tensorrt-rtx"
        assert relative_l2(face_diffuser.generate(small()).array, expected) == 0
    assert not compared
    assert verify.main([str(bundle), "--on-gpu"]) == 1
    told = capsys.readouterr().err
    assert "holds plans alone" in told and "comparing plans with the CPU needs them" in told
    with pytest.raises(ProviderUnavailableError, match=r"holds plans alone.*onnxruntime-cpu needs"):
        FaceDiffuser.open(bundle, provider="onnxruntime-cpu")
    machine.architecture = 90
    written_library(bundle / KERNELS_FOLDER, architecture=90, element_type="float32")
    with pytest.raises(PlanMismatchError) as told_what:
        FaceDiffuser.open(bundle, provider="tensorrt-rtx")
    assert told_what.value.fix is not None and "export.build" in told_what.value.fix
