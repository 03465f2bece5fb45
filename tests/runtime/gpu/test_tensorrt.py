"""Plans through TensorRT's double: the same pictures, and every way in which plans do not fit."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import runtime.backends
import runtime.gpu.backend
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component
from engines.cuda.driver import Driver
from engines.cuda.gpu import Gpu, Memory, opened_gpu
from engines.engine import DeviceNeed
from engines.errors import (
    BundleCorruptError,
    ContractError,
    DeviceMemoryError,
    PlanMismatchError,
    ProviderUnavailableError,
    RequestError,
)
from engines.tensorrt import provider as tensorrt_provider
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.library import TensorRtError
from engines.tensorrt.plans_here import fusion_nbytes
from runtime import FaceDiffuser, Provider
from runtime.gpu.backend import GpuBackend
from tests.doubles import small_plans, tensorrt_execution
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.doubles.tensorrt_names import packed, unpacked
from tests.kernels.recorder import written_library
from tests.runtime.gpu.double import with_kernels
from tests.runtime.gpu.drawing import quiet_steps, relative_l2, small
from tests.vendor import tensorrt as double

Open = Callable[..., FaceDiffuser]
DECODER = Component.VAE_DECODER


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = with_kernels(golden_bundle, tmp_path_factory.mktemp("plans"))
    small_plans.add_plans(path)
    return path


@pytest.fixture
def driver(bundle: Path) -> CudaDriver:
    return cuda_driver(bundle / KERNELS_FOLDER)


@pytest.fixture
def machine(driver: CudaDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaDriver]:
    """A machine with a GPU and TensorRT, both doubles; work goes to the streams of one."""
    monkeypatch.setattr(runtime.backends, "driver", lambda _: driver)
    monkeypatch.setattr(runtime.gpu.backend, "GpuBackend", partial(GpuBackend, trials=1))
    monkeypatch.setattr(tensorrt_provider, "load", lambda _: double)
    monkeypatch.setattr(tensorrt_execution, "enqueue", driver.put)
    monkeypatch.setattr(tensorrt_execution, "take", driver.taken)
    yield driver
    gc.collect()  # of an error that was caught, and what it refers to
    assert not +driver.open


def test_plans_draw_what_the_cpu_draws_with_nothing_between_the_steps(
    bundle: Path, machine: CudaDriver
) -> None:
    request = small(guidance_rule="released")
    with FaceDiffuser.open(bundle) as face_diffuser:
        assert face_diffuser.provider == "tensorrt"
        assert not face_diffuser.declined
        face_diffuser.warm_up(height=64, width=64, guidance_rule="released")
        with quiet_steps(machine):
            found = face_diffuser.generate(request)
        picture = face_diffuser.generate(
            small(output_type="pil", guidance_rule="released")
        ).pictures[0]
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as host:
        assert relative_l2(found.array, host.generate(request).array) < 1e-4
        expected = host.generate(small(output_type="pil", guidance_rule="released")).pictures[0]
    # A value that lies on the edge of two levels may fall to either.
    assert np.abs(np.asarray(picture, np.int32) - np.asarray(expected, np.int32)).max() <= 1


def test_plans_in_half_precision_draw_what_the_cpu_draws_in_single(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_library(small_copy / KERNELS_FOLDER, element_type="float16")
    small_plans.add_plans(small_copy)
    driver = cuda_driver(small_copy / KERNELS_FOLDER, element_type="float16")
    monkeypatch.setattr(runtime.backends, "driver", lambda _: driver)
    monkeypatch.setattr(runtime.gpu.backend, "GpuBackend", partial(GpuBackend, trials=1))
    monkeypatch.setattr(tensorrt_provider, "load", lambda _: double)
    monkeypatch.setattr(tensorrt_execution, "enqueue", driver.put)
    request = small(beta=1.0)
    with FaceDiffuser.open(small_copy, provider="tensorrt") as face_diffuser:
        found = face_diffuser.generate(request).array
    with FaceDiffuser.open(small_copy, provider="onnxruntime-cpu", threads=1) as host:
        expected = host.generate(request).array
    # A noise prediction's rounding, 2**-11, six times by guidance, over four steps; where masks
    # nearly tie, more. Another element type in a buffer is off by its whole size.
    assert 0 < relative_l2(found, expected) < 5e-2


def test_activations_take_what_the_size_needs_not_what_the_plans_largest_would(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    allocated = Gpu.memory

    def watched(gpu: Gpu, stack: ExitStack, nbytes: int, what: str) -> Memory:
        if what == "activation memory":
            taken.append(nbytes)
        return allocated(gpu, stack, nbytes, what)

    monkeypatch.setattr(Gpu, "memory", watched)
    sizes = {}
    for side in (64, 128):
        with FaceDiffuser.open(bundle) as face_diffuser:
            taken.clear()
            face_diffuser.warm_up(height=side, width=side)
            found = face_diffuser.generate(small(height=side, width=side)).array
        # TDM's and SDM's side by side; the encoders' comes after.
        sizes[side] = taken[0]
        with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as host:
            expected = host.generate(small(height=side, width=side)).array
        assert relative_l2(found, expected) < 1e-4
    # The double takes 8 bytes an element of each model's inputs, of which the latents shrink.
    assert sizes[128] - sizes[64] == 2 * 8 * 4 * (16**2 - 8**2)


def test_in_low_memory_a_plan_is_on_the_gpu_while_it_is_used(
    bundle: Path, machine: CudaDriver
) -> None:
    plans = Bundle.open(bundle).manifest.plans
    weights = {plan.spec.component: plan.built.file.nbytes for plan in plans}
    requests = [small(output_type="np"), small(num_images=2), small(output_type="np")]
    with FaceDiffuser.open(bundle, provider="tensorrt") as face_diffuser:
        expected = [face_diffuser.generate(each).array for each in requests]
        assert machine.device.nbytes > 0.9 * sum(weights.values())
    with FaceDiffuser.open(bundle, low_memory=True) as face_diffuser:
        assert face_diffuser.provider == "tensorrt"
        for request, array in zip(requests, expected, strict=True):
            np.testing.assert_array_equal(face_diffuser.generate(request).array, array)
        machine.device.peak_nbytes = 0
        face_diffuser.generate(requests[0])
        # Nothing but the decoder is left; a plan is a little more than its weights.
        left = machine.device.nbytes - weights[Component.VAE_DECODER]
        both = sum(weights[each] for each in NOISE_PREDICTORS)
        assert 0 < left < both // 4
        assert 0 < machine.device.peak_nbytes - 0.99 * both < 2 * left
        machine.device.peak_nbytes = 0
        face_diffuser.generate(small(alpha=0.5, beta=0.5))
        assert machine.device.peak_nbytes - left < 0.55 * both


def test_what_a_plan_takes_is_known_for_the_largest_shapes_of_its_only_profile(
    bundle: Path, machine: CudaDriver
) -> None:
    opened = Bundle.open(bundle)
    plan = next(each for each in opened.manifest.plans if each.spec.component is DECODER)
    with opened_gpu(machine) as gpu:
        provider = tensorrt_provider.TensorRtProvider(opened, gpu)
        for side, told in ((8, None), (16, plan.built.device_memory_nbytes)):
            shapes = CONTRACTS[DECODER].shapes(
                opened.manifest.dimensions.sizes() | {"images": 1, "h": side, "w": side}
            )
            need = provider.need(DECODER, shapes)
            assert need == DeviceNeed(
                weights=plan.spec.path, weights_nbytes=plan.built.file.nbytes,
                activations_nbytes=told,
            )  # fmt: skip
        one, other = (provider.open(DECODER, shapes) for _ in range(2))
        taken = machine.device.nbytes
        one.close()
        provider.trim()
        assert machine.device.nbytes == taken > 0, "another engine uses the same weights"
        other.close()
        assert machine.device.nbytes == taken, "until somebody asks for it, weights stay"
        provider.trim()
        assert machine.device.nbytes == 0


def test_a_size_outside_the_plans_lists_the_sizes_there_are(
    bundle: Path, machine: CudaDriver
) -> None:
    expected = (
        r"no plan of tdm_unet takes 1 image of 64x192 px in 2 passes; there are plans for "
        r"1 image of 64x64 px in 2 passes to 2 images of 128x128 px in 2 passes; "
        r"build others with: python -m engines\.build .*--profile"
    )
    with (
        FaceDiffuser.open(bundle) as face_diffuser,
        pytest.raises(RequestError, match=expected),
    ):
        face_diffuser.generate(small(width=192))


@pytest.mark.parametrize(
    ("architecture", "version", "reason"),
    [
        (89, small_plans.VERSION, r"built for GPU sm_89, this machine has sm_90; rebuild"),
        (90, "10.16.1.11", r"built with TensorRT 10\.16\.1\.11, this machine has 11\.4"),
    ],
)
def test_plans_for_another_machine_are_an_error_only_where_they_are_asked_for(
    architecture: int, version: str, reason: str, golden_bundle: Path, tmp_path: Path,
    machine: CudaDriver,
) -> None:  # fmt: skip
    path = with_kernels(golden_bundle, tmp_path)
    small_plans.add_plans(path, architecture, version)
    with pytest.raises(PlanMismatchError, match=reason):
        FaceDiffuser.open(path, provider="tensorrt")
    with FaceDiffuser.open(path) as face_diffuser:
        assert face_diffuser.provider == "onnxruntime-cpu"
        assert list(face_diffuser.declined) == [
            Provider.TENSORRT,
            Provider.TENSORRT_RTX,
            Provider.ONNXRUNTIME_CUDA,
        ]


def test_a_bundle_without_kernels_is_drawn_on_the_cpu(
    bundle: Path, tmp_path: Path, machine: CudaDriver
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    shutil.rmtree(path / KERNELS_FOLDER)
    with FaceDiffuser.open(path) as face_diffuser:
        assert face_diffuser.provider == "onnxruntime-cpu"
        assert "has no GPU kernels" in face_diffuser.declined[Provider.TENSORRT]


def test_without_tensorrt_its_installation_is_named(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(runtime.backends, "driver", lambda _: machine)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ProviderUnavailableError, match=r'pip install "face-diffuser\[tensorrt\]"'):
        FaceDiffuser.open(bundle, provider="tensorrt")


def test_a_driver_older_than_tensorrts_cuda_is_named(bundle: Path, machine: CudaDriver) -> None:
    machine.version = 12080
    with pytest.raises(ProviderUnavailableError, match=r"needs a driver for CUDA 13 .*CUDA 12\.8"):
        FaceDiffuser.open(bundle, provider="tensorrt")


def test_without_a_gpu_the_cpu_draws_and_the_reason_is_there(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver(extra: str) -> Driver:
        raise ProviderUnavailableError("no GPU; check", fix="nvidia-smi")

    monkeypatch.setattr(runtime.backends, "driver", no_driver)
    with FaceDiffuser.open(bundle) as face_diffuser:
        assert face_diffuser.provider == "onnxruntime-cpu"
        assert face_diffuser.declined[Provider.TENSORRT] == "no GPU; check: nvidia-smi"
    for provider in ("tensorrt", "onnxruntime-cuda"):
        with pytest.raises(ProviderUnavailableError, match="nvidia-smi"):
            FaceDiffuser.open(bundle, provider=provider)


def test_a_truncated_plan_is_an_error_and_never_passed_over(
    bundle: Path, tmp_path: Path, machine: CudaDriver
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    plan = path / "plans" / "sdm_unet.small.sm_90.plan"
    plan.write_bytes(plan.read_bytes()[:-100])
    with pytest.raises(BundleCorruptError, match=r"bytes.*python -m engines\.build"):
        FaceDiffuser.open(path)


def test_a_damaged_plan_of_the_right_size_is_an_error(
    bundle: Path, tmp_path: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    plan = path / "plans" / "sdm_unet.small.sm_90.plan"
    content = bytearray(plan.read_bytes())
    content[-1] ^= 1
    plan.write_bytes(content)
    # As large plans are, which are hashed when they are opened.
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", 0)
    expected = r"sdm_unet.*\.plan is not whole or was altered.*python -m engines\.build"
    with (
        FaceDiffuser.open(path) as face_diffuser,
        pytest.raises(BundleCorruptError, match=expected),
    ):
        face_diffuser.warm_up(height=64, width=64)


def test_a_plan_of_another_model_is_an_error_before_it_draws(
    bundle: Path, tmp_path: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    plan = path / "plans" / "sdm_unet.small.sm_90.plan"
    content = unpacked(plan.read_bytes())
    assert content is not None
    header, model = content[0], onnx.load_from_string(content[1])
    weights = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    weights.raw_data = bytes(len(weights.raw_data))
    plan.write_bytes(packed(header, model.SerializeToString()))  # TensorRT takes it
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", 0)
    with (
        FaceDiffuser.open(path) as face_diffuser,
        pytest.raises(BundleCorruptError, match=r"sdm_unet.*was altered"),
    ):
        face_diffuser.generate(small())


def test_running_out_of_memory_while_opening_says_what_it_takes(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(runtime: Any, plan: bytes) -> Any:
        return runtime._nothing("Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)")

    monkeypatch.setattr(tensorrt_execution.Runtime, "deserialize_cuda_engine", full)
    plans = Bundle.open(bundle).manifest.plans
    unets = [plan for plan in plans if plan.spec.component in NOISE_PREDICTORS]
    need = sum(plan.built.file.nbytes + plan.built.device_memory_nbytes for plan in unets)
    assert fusion_nbytes(plans) == need
    assert fusion_nbytes(plans[:1]) == 0
    expected = (
        r"does not fit: .*MiB free, the plan takes .*; both U-Nets, which fusion runs at once, "
        rf"take at least {-(-need >> 20)} MiB .*OutOfMemory.*nvidia-smi"
    )
    with (
        FaceDiffuser.open(bundle) as face_diffuser,
        pytest.raises(DeviceMemoryError, match=expected),
    ):
        face_diffuser.warm_up(height=64, width=64)


@pytest.mark.parametrize(
    ("method", "answer", "error", "reason"),
    [
        ("set_optimization_profile_async", False, TensorRtError, r"profile \d of \w+_unet"),
        ("set_input_shape", False, TensorRtError, r"latents \(1, 4, 8, 8\) of \w+_unet"),
        ("infer_shapes", ["timestep"], ContractError, "wants shapes for timestep as well"),
        ("set_tensor_address", False, TensorRtError, "as the address of latents of tdm_unet"),
        ("execute_async_v3", False, TensorRtError, "to run tdm_unet"),
    ],
)
def test_every_answer_is_looked_at(
    method: str, answer: object, error: type[Exception], reason: str, bundle: Path,
    machine: CudaDriver, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(tensorrt_execution.IExecutionContext, method, lambda *_: answer)
    with FaceDiffuser.open(bundle) as face_diffuser, pytest.raises(error, match=reason):
        face_diffuser.warm_up(height=64, width=64)


def test_a_context_that_is_not_given_is_an_error(
    bundle: Path, machine: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_execution.ICudaEngine, "create_execution_context", lambda *_: None)
    with (
        FaceDiffuser.open(bundle) as face_diffuser,
        pytest.raises(TensorRtError, match="execution context of tdm_unet"),
    ):
        face_diffuser.warm_up(height=64, width=64)


def test_the_profile_that_was_tuned_nearest_is_taken() -> None:
    near, far = ((1, 4, 8, 8), (1, 4, 8, 8), (4, 4, 8, 8)), ((1, 4, 8, 8), (4, 4, 8, 8))
    header = {"profiles": [{"latents": (*far, (4, 4, 8, 8))}, {"latents": near}]}

    class Engine(tensorrt_execution.ICudaEngine):
        def create_execution_context(self, strategy: Any) -> Any:
            return tensorrt_execution.IExecutionContext(self, strategy)

        num_io_tensors = 2

        def get_tensor_name(self, index: int) -> str:
            return ("latents", "pixels")[index]

        def get_tensor_dtype(self, name: str) -> Any:
            return double.DataType.HALF

        def get_tensor_shape(self, name: str) -> Any:
            return (-1, 4, 8, 8)

    engine = TensorRtEngine(Component.VAE_DECODER, double, Engine(header, b"", None))  # type: ignore[arg-type]
    shapes = {"latents": (1, 4, 8, 8), "pixels": (1, 3, 64, 64)}
    assert engine.admits(shapes)
    assert engine._profile(shapes) == 1
    assert engine._profile(shapes | {"latents": (4, 4, 8, 8)}) == 0
    assert not engine.admits(shapes | {"latents": (5, 4, 8, 8)})
    with pytest.raises(RequestError, match="does not take 5 images of 64x64 px"):
        engine.workspace_nbytes(shapes | {"latents": (5, 4, 8, 8)}, 0)
    assert set(engine.dtypes.values()) == {np.dtype(np.float16)}
