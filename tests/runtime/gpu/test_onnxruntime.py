"""ONNX Runtime's CUDA provider, by a double of the module on the CUDA double's memory."""

from __future__ import annotations

import gc
import json
import shutil
import tomllib
import weakref
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
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import Component
from engines.engine import DeviceTensor
from engines.errors import (
    BundleCorruptError,
    ContractError,
    DeviceMemoryError,
    ProviderUnavailableError,
)
from engines.onnxruntime.cuda import OnnxRuntimeCudaEngine
from engines.onnxruntime.library import CPU_PROVIDER, CUDA_PROVIDER, PACKAGES
from engines.onnxruntime.placement import PlacedSession, check_placement, events_of
from engines.onnxruntime.release import CUDA_12, OLDEST
from runtime import FaceDiffuser, Provider
from runtime.gpu.backend import GpuBackend
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.paths import ROOT
from tests.runtime.gpu.double import with_kernels
from tests.runtime.gpu.drawing import quiet_steps, relative_l2, small

STREAM = 7
_KINDS = {
    "tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(bool)": np.bool_,
}  # fmt: skip


class Session:
    """A real session on the CPU that says it is on the GPU, and runs when its stream does.

    on_cpu: kinds of nodes that its profile tells to have run on the CPU, beside those on shapes.
    """

    on_cpu: frozenset[str] = frozenset()

    def __init__(
        self, driver: CudaDriver, path: Path, options: Any, providers: list[Any], **named: Any
    ) -> None:
        ((provider, settings),) = providers
        assert provider == CUDA_PROVIDER
        assert named == {"enable_fallback": 0}
        assert options.log_severity_level == 3
        assert settings["use_tf32"] == "0"
        assert settings["arena_extend_strategy"] == "kSameAsRequested"
        entry = "session.use_device_allocator_for_initializers"
        assert options.get_session_config_entry(entry) == "1"
        self._driver, self._stream = driver, int(settings["user_compute_stream"])
        own = onnxruntime.SessionOptions()
        own.enable_profiling, own.profile_file_prefix = True, options.profile_file_prefix
        self._session = onnxruntime.InferenceSession(path, own, providers=[CPU_PROVIDER])
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        nbytes = sum(each.stat().st_size for each in (path, path.with_suffix(".data")))
        weakref.finalize(self, driver.taken(nbytes))

    def get_providers(self) -> list[str]:
        return [CUDA_PROVIDER, CPU_PROVIDER]

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def io_binding(self) -> Any:
        return Binding(self._session.io_binding())

    def end_profiling(self) -> str:
        """The profile of a run, with the GPU as the provider of all that it would compute."""
        self._run_where_nothing_waits()
        path = self._session.end_profiling()
        if path:
            events = json.loads(Path(path).read_text())
            for event in events:
                told = event.get("args", {})
                if told.get("op_name") not in {"Shape", *self.on_cpu} and "provider" in told:
                    told["provider"] = CUDA_PROVIDER
            Path(path).write_text(json.dumps(events))
        return str(path)

    def _run_where_nothing_waits(self) -> None:
        """A GPU's profile tells of a run that was enqueued; the double has yet to compute it."""
        symbols = {"rows": 2, "h": 8, "w": 8}
        feeds: dict[str, Any] = {
            name: np.zeros(
                [size if isinstance(size, int) else symbols.get(size, 1) for size in each.shape],
                _KINDS[each.type],
            )
            for name, each in self._inputs.items()
        }
        self._session.run(None, feeds)

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
            "__version__": "1.31.1",
            "cuda_version": "13.0",
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
    gc.collect()  # of an error that was caught, and what it refers to
    assert not +driver.open


def put_in_place(monkeypatch: pytest.MonkeyPatch, double: Any) -> None:
    monkeypatch.setattr(engines.onnxruntime.library, "import_module", lambda _: double)


def test_the_picture_is_the_cpus_and_sessions_are_shared(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as host:
        expected = host.generate(small(beta=1.0)).array
    opened: list[Path] = []

    def session(path: Path, *rest: Any, **named: Any) -> Session:
        opened.append(path)
        return Session(driver, path, *rest, **named)

    put_in_place(monkeypatch, module(driver, InferenceSession=session))
    with FaceDiffuser.open(bundle) as face_diffuser:
        assert face_diffuser.provider == "onnxruntime-cuda"
        assert "TensorRT is not installed" in face_diffuser.declined[Provider.TENSORRT]
        with quiet_steps(driver):
            found = face_diffuser.generate(small(beta=1.0)).array
        face_diffuser.generate(small(guidance_rule="released"))
    assert relative_l2(found, expected) < 1e-4
    assert len(opened) == len(set(opened)) == len(Component)
    assert "cuGraphLaunch" not in driver.calls
    # What it prints must not get into --json's one object.
    assert capsys.readouterr().out == ""


def test_in_low_memory_sessions_take_turns(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place(monkeypatch, module(driver))
    requests = [small(output_type="np"), small(height=128), small(output_type="np")]
    with FaceDiffuser.open(bundle, provider="onnxruntime-cuda") as face_diffuser:
        expected = [face_diffuser.generate(each).array for each in requests]
    unet, decoder = (
        Bundle.open(bundle).component(each).onnx_nbytes()
        for each in (Component.TDM_UNET, Component.VAE_DECODER)
    )
    with FaceDiffuser.open(bundle, provider="onnxruntime-cuda", low_memory=True) as face_diffuser:
        for request, array in zip(requests, expected, strict=True):
            np.testing.assert_array_equal(face_diffuser.generate(request).array, array)
        left = driver.device.nbytes - decoder
        assert 0 < left < unet // 2
        driver.device.peak_nbytes = 0
        face_diffuser.generate(requests[0])
        assert driver.device.peak_nbytes == left + 2 * unet
        driver.total_nbytes = left + 2 * unet - 1024
        with pytest.raises(DeviceMemoryError, match="the fusion stage takes at least 7 MiB"):
            face_diffuser.generate(requests[0])
        driver.device.peak_nbytes = 0
        face_diffuser.generate(small(output_type="np", alpha=0.5, beta=0.5))
        assert driver.device.peak_nbytes == left + unet


def _raising(reason: str) -> Any:
    """Something of ONNX Runtime's that raises, from its own module."""
    scope: dict[str, Any] = {"__name__": "onnxruntime"}
    exec(f"def session(*_, **__): raise RuntimeError({reason!r})", scope)
    return scope["session"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"get_available_providers": lambda: [CPU_PROVIDER]}, r'pip install "onnxruntime-gpu'),
        (
            {"InferenceSession": lambda path, *_, **__: _FellBack(path)},
            r'fell back to CPUExecutionProvider .*pip install "onnxruntime-gpu\[cuda,cudnn\]',
        ),
        ({"__version__": "1.24.4"}, r"attention on the CPU; 1\.25 is the first"),
        ({"cuda_version": "14.0"}, r"built for CUDA 14 .*this one is for CUDA 13\.1"),
        ({"InferenceSession": _raising("no such option")}, "does not open .*no such option"),
    ],
    ids=[
        "built for CPUs", "CUDA's libraries do not load", "without Attention on the GPU",
        "for a newer driver", "an exception",
    ],
)  # fmt: skip
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

    def end_profiling(self) -> str:
        return ""

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
    real = onnxruntime.InferenceSession(path, providers=[CPU_PROVIDER])

    def engine(reason: str = "broken") -> OnnxRuntimeCudaEngine:
        opened = PlacedSession(Component.VAE_DECODER, _Fails(reason, real))
        return OnnxRuntimeCudaEngine(module(driver), opened, STREAM)

    assert engine().workspace_nbytes({}, 0) == 0
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


def test_in_low_memory_weights_that_changed_since_the_last_picture_draw_nothing(
    bundle: Path, tmp_path: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    put_in_place(monkeypatch, module(driver))
    with FaceDiffuser.open(path, provider="onnxruntime-cuda", low_memory=True) as face_diffuser:
        face_diffuser.generate(small())
        weights = path / "onnx" / "tdm_unet.data"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        with pytest.raises(BundleCorruptError, match=r"tdm_unet\.data was altered"):
            face_diffuser.generate(small())


@pytest.mark.parametrize("kind", ["Conv", "MatMul", "Concat"])
def test_a_node_that_computes_on_the_cpu_is_refused_by_its_name(
    kind: str, bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fallen(Session):
        on_cpu = frozenset({kind})

    put_in_place(monkeypatch, module(driver, InferenceSession=partial(Fallen, driver)))
    told = (
        rf"nodes of \w+ on CPUExecutionProvider instead of the GPU \(\d+ {kind}; the first is \w+"
    )
    with (
        FaceDiffuser.open(bundle, provider="onnxruntime-cuda") as face_diffuser,
        pytest.raises(ProviderUnavailableError, match=told),
    ):
        face_diffuser.generate(small())


def profile_of(component: Component, bundle: Path, folder: Path) -> list[dict[str, Any]]:
    """What a real session on the CPU tells of one run."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / component)
    path = bundle / "onnx" / f"{component}.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=[CPU_PROVIDER])
    session.run(None, {"latents": np.zeros((1, 4, 8, 8), np.float32)})
    return [dict(each) for each in events_of(Path(session.end_profiling()))]


def test_only_arithmetic_on_sizes_may_lie_on_the_cpu(bundle: Path, tmp_path: Path) -> None:
    nodes = profile_of(Component.VAE_DECODER, bundle, tmp_path)
    assert {"Conv", "Shape"} <= {node["op_name"] for node in nodes}
    for node in nodes:
        kinds = {kind for tensor in node["output_type_shape"] for kind in tensor}
        if kinds & {"float", "float16"}:
            node["provider"] = CUDA_PROVIDER
    check_placement(Component.VAE_DECODER, nodes)
    assert any(node["provider"] == CPU_PROVIDER for node in nodes)
    last = [node for node in nodes if node["op_name"] == "Add"][-1]
    last["provider"] = CPU_PROVIDER
    with pytest.raises(ProviderUnavailableError, match=f"1 Add; the first is {last['name']}"):
        check_placement(Component.VAE_DECODER, nodes)
    with pytest.raises(ProviderUnavailableError, match="does not tell where"):
        check_placement(Component.VAE_DECODER, [])


def test_what_is_typed_installs_what_the_extra_asks_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = (
        each for each in extras["optional-dependencies"]["gpu"] if each.startswith("onnxruntime")
    )
    assert asked in PACKAGES[CUDA_PROVIDER]
    assert asked.endswith(f">={OLDEST[0]}.{OLDEST[1]}")
    assert asked in CUDA_12
