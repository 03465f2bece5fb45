"""ONNX Runtime's CUDA provider, by a double of the module on the CUDA double's memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

import engines.onnxruntime.library
import runtime.backends
from engines.bundle.folder import KERNELS_FOLDER
from engines.contract import Component
from engines.engine import DeviceTensor
from engines.errors import (
    BundleCorruptError,
    ContractError,
    DeviceMemoryError,
    ProviderUnavailableError,
)
from engines.onnxruntime.cuda import OnnxRuntimeCudaEngine
from engines.onnxruntime.library import CPU_PROVIDER, CUDA_PROVIDER
from runtime import FaceDiffuser, Provider
from runtime.gpu.backend import GpuBackend
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.runtime.gpu.double import quiet_steps, relative_l2, small, with_kernels

STREAM = 7


class Session:
    """A real session on the CPU that says it is on the GPU, and runs when its stream does."""

    def __init__(self, driver: CudaDriver, path: Path, options: Any, providers: list[Any]) -> None:
        ((provider, settings),) = providers
        assert provider == CUDA_PROVIDER
        assert options.log_severity_level == 3
        self._driver, self._stream = driver, int(settings["user_compute_stream"])
        self._session = onnxruntime.InferenceSession(path, providers=[CPU_PROVIDER])

    def get_providers(self) -> list[str]:
        return [CUDA_PROVIDER, CPU_PROVIDER]

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def io_binding(self) -> Any:
        return Binding(self._session.io_binding())

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        entry = options.get_run_config_entry("disable_synchronize_execution_providers")
        assert entry == "1"
        self._driver.calls.append("run session")
        self._driver.put(
            self._stream, lambda: self._session.run_with_iobinding(binding.real, options)
        )


class Binding:
    """Binds what is on the double's device."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def bind_input(self, name: str, device: str, *arguments: Any) -> None:
        assert device == "cuda"
        self.real.bind_input(name, "cpu", *arguments)

    def bind_output(self, name: str, device: str, *arguments: Any) -> None:
        assert device == "cuda"
        self.real.bind_output(name, "cpu", *arguments)

    def clear_binding_inputs(self) -> None:
        self.real.clear_binding_inputs()

    def clear_binding_outputs(self) -> None:
        self.real.clear_binding_outputs()


def module(driver: CudaDriver, **changes: Any) -> Any:
    """The module `onnxruntime` of a machine with a GPU."""
    return SimpleNamespace(
        **{
            "get_available_providers": lambda: [CUDA_PROVIDER, CPU_PROVIDER],
            "InferenceSession": partial(Session, driver),
            "SessionOptions": onnxruntime.SessionOptions,
            "RunOptions": onnxruntime.RunOptions,
            "preload_dlls": lambda: print("no cuDNN in the wheels"),
        }
        | changes
    )


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_kernels(golden_bundle, tmp_path_factory.mktemp("sessions"))


@pytest.fixture
def driver(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaDriver]:
    driver = cuda_driver(bundle / KERNELS_FOLDER)
    monkeypatch.setattr(runtime.backends, "driver", lambda _: driver)
    # The double warms up small pictures only; the golden bundle's own size takes it minutes.
    monkeypatch.setattr(GpuBackend, "warm_up", lambda *_: None)
    yield driver
    assert not +driver.open


def put_in_place(monkeypatch: pytest.MonkeyPatch, double: Any) -> None:
    monkeypatch.setattr(engines.onnxruntime.library, "import_module", lambda _: double)


def test_the_picture_is_the_cpus_and_sessions_are_shared(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as host:
        expected = host.generate(small(beta=1.0)).images
    opened: list[Path] = []

    def session(path: Path, *rest: Any, **named: Any) -> Session:
        opened.append(path)
        return Session(driver, path, *rest, **named)

    put_in_place(monkeypatch, module(driver, InferenceSession=session))
    with FaceDiffuser.open(bundle) as face_diffuser:
        assert face_diffuser.provider == "onnxruntime-cuda"
        assert "TensorRT is not installed" in face_diffuser.declined[Provider.TENSORRT]
        with quiet_steps(driver):
            found = face_diffuser.generate(small(beta=1.0)).images
        face_diffuser.generate(small(guidance_rule="released"))
    assert relative_l2(found, expected) < 1e-4
    assert len(opened) == len(set(opened)) == len(Component)
    assert "cuGraphLaunch" not in driver.calls
    # What it prints must not get into --json's one object.
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"get_available_providers": lambda: [CPU_PROVIDER]}, r"pip install onnxruntime-gpu"),
        (
            {"InferenceSession": lambda path, options, providers: _FellBack(path)},
            r'fell back to CPUExecutionProvider .*pip install "onnxruntime-gpu\[cuda,cudnn\]"',
        ),
    ],
    ids=["built for CPUs", "CUDA's libraries do not load"],
)
def test_a_provider_that_falls_back_is_an_error(
    changes: dict[str, Any], reason: str, bundle: Path, driver: CudaDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    put_in_place(monkeypatch, module(driver, **changes))
    with (
        pytest.raises(ProviderUnavailableError, match=reason),
        FaceDiffuser.open(bundle, provider="onnxruntime-cuda") as face_diffuser,
    ):
        face_diffuser.generate(small())


class _FellBack(Session):
    def __init__(self, path: Path) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=[CPU_PROVIDER])

    def get_providers(self) -> list[str]:
        return [CPU_PROVIDER]


class _Fails:
    def __init__(self, reason: str, real: Any) -> None:
        self._reason, self._real = reason, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run_with_iobinding(self, *_: Any) -> None:
        raise RuntimeError(self._reason)


def test_failures_and_wrong_tensors_are_named(bundle: Path, driver: CudaDriver) -> None:
    path = bundle / "onnx" / "vae_decoder.onnx"
    options = SimpleNamespace(log_severity_level=3)
    settings = {"user_compute_stream": str(STREAM)}
    real = Session(driver, path, options, [(CUDA_PROVIDER, settings)])

    def engine(reason: str = "broken") -> OnnxRuntimeCudaEngine:
        return OnnxRuntimeCudaEngine(
            module(driver), Component.VAE_DECODER, _Fails(reason, real), STREAM
        )

    assert engine().workspace_nbytes({}) == 0
    assert not engine().admits({"latents": (1, 4, 8, 8)})
    half = DeviceTensor(256, (1, 4, 8, 8), np.dtype(np.float16))
    with pytest.raises(ContractError, match=r"its own are \['latents', 'pixels'\]"):
        engine().bind({"latents": half}, 0, STREAM)
    with pytest.raises(ContractError, match="latents as float32, got float16"):
        engine().bind({"latents": half, "pixels": half}, 0, STREAM)
    with pytest.raises(ContractError, match="made for, 7, not on 8"):
        engine().enqueue(8)
    with pytest.raises(ContractError, match="vae_decoder cannot run: broken"):
        engine().enqueue(STREAM)
    with pytest.raises(DeviceMemoryError, match="does not fit the GPU's memory"):
        engine("Failed to allocate memory for requested buffer").enqueue(STREAM)


def test_weights_are_compared_with_their_digests_before_they_draw(
    bundle: Path, tmp_path: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    weights = path / "onnx" / "tdm_unet.data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    # As large files are, which are not hashed before.
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", 0)
    monkeypatch.setattr(engines.onnxruntime.library, "import_module", lambda _: module(driver))
    with (
        FaceDiffuser.open(path, provider="onnxruntime-cuda") as face_diffuser,
        pytest.raises(BundleCorruptError, match=r"tdm_unet\.data was altered"),
    ):
        face_diffuser.generate(small())
