"""What can go wrong on the GPU backend, how it ends, and that nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import Component
from engines.cuda.driver import CudaError
from engines.cuda.gpu import opened_gpu
from engines.cuda.graph import captured
from engines.cuda.streams import Streams
from engines.errors import (
    CancelledError,
    ContractError,
    DeviceMemoryError,
    FaceDiffuserError,
    NonFiniteError,
    ProviderUnavailableError,
    RequestError,
)
from runtime import FaceDiffuser, StepInfo
from runtime.gpu.backend import MAX_SIZES, GpuBackend
from runtime.gpu.programs import Concurrency
from runtime.trajectory import RequestKind
from tests.doubles.cuda_driver import CudaDriver, Misuse, cuda_driver
from tests.doubles.host_engine import HostEngine, HostProvider
from tests.runtime.gpu.double import OnCuda, on_cuda, with_kernels
from tests.runtime.gpu.drawing import small


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_kernels(golden_bundle, tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def driver(bundle: Path) -> CudaDriver:
    return cuda_driver(bundle / KERNELS_FOLDER)


def closed(kind: str, cuda: OnCuda, since: int) -> list[int]:
    calls = cuda.driver.calls
    return [i for i, call in enumerate(calls) if i >= since and call == f"close {kind}"]


def test_graphs_go_before_engines_before_memory_before_kernels_before_streams(
    bundle: Path,
) -> None:
    with on_cuda(bundle) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        start = len(cuda.driver.calls)
    order = ["executable", "sdm_unet", "memory", "provider", "library", "stream", "context"]
    first = [closed(kind, cuda, start)[0] for kind in order]
    assert first == sorted(first)
    # Engines before the memory that they use, one and all.
    assert closed("vae_decoder", cuda, start)[-1] < closed("memory", cuda, start)[0]
    last_memory = closed("memory", cuda, start)[-1]
    assert closed("text_encoder", cuda, start)[-1] < last_memory < closed("library", cuda, start)[0]


def test_the_faster_way_through_the_fusion_stage_is_taken(bundle: Path) -> None:
    area = RequestKind(images=1, height=8, width=8)
    for slowdown, expected in ((1.0, Concurrency.CONCURRENT), (3.0, Concurrency.SERIAL)):
        driver = cuda_driver(bundle / KERNELS_FOLDER, side_by_side=slowdown)
        with on_cuda(bundle, driver=driver, concurrency=None) as cuda:
            programs = cuda.backend.programs(area)
            assert programs.concurrency is expected
            # Two engines and two kernels: the engines together, or one after the other.
            assert programs.measured_ms == {
                Concurrency.SERIAL: 4.0,
                Concurrency.CONCURRENT: 3.0 * slowdown,
            }


def test_only_the_latest_sizes_are_kept(bundle: Path) -> None:
    with on_cuda(bundle) as cuda:
        for width in range(64, 64 * (MAX_SIZES + 1), 64):
            cuda.face_diffuser.warm_up(height=64, width=width)
        executables = cuda.driver.open["executable"]
        cuda.face_diffuser.warm_up(height=128, width=64)
        assert cuda.driver.open["executable"] == executables
        captures = cuda.count("cuStreamBeginCapture")
        cuda.face_diffuser.warm_up(height=64, width=128)
        assert cuda.count("cuStreamBeginCapture") == captures
        cuda.face_diffuser.warm_up(height=64, width=64)
        assert cuda.count("cuStreamBeginCapture") > captures


def test_where_memory_is_short_older_sizes_are_given_up(bundle: Path, driver: CudaDriver) -> None:
    with on_cuda(bundle, driver=driver) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        driver.total_nbytes = driver.device.nbytes + 1
        cuda.face_diffuser.warm_up(height=64, width=64, guidance_rule="released")
        assert driver.open["executable"] == 3
        driver.total_nbytes = driver.device.nbytes // 4
        with pytest.raises(DeviceMemoryError, match=r"MiB free, .* takes .* nvidia-smi"):
            cuda.face_diffuser.warm_up(height=256, width=256)
    assert not +driver.open


def test_a_size_outside_the_plans_leaves_nothing_behind(bundle: Path) -> None:
    with on_cuda(bundle, largest=16) as cuda:
        before = dict(cuda.driver.open)
        with pytest.raises(RequestError, match="sizes up to 16"):
            cuda.face_diffuser.warm_up(height=192, width=64)
        assert dict(+cuda.driver.open) == {kind: n for kind, n in before.items() if n}


def test_an_engine_that_fails_while_captured_ends_the_capture(bundle: Path) -> None:
    with on_cuda(bundle) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        engine = cuda.engine(Component.SDM_UNET)

        def refuse(stream: int) -> None:
            raise ContractError("refused")

        enqueue, engine.enqueue = engine.enqueue, refuse  # type: ignore[method-assign]
        with pytest.raises(ContractError, match="refused"):
            cuda.face_diffuser.warm_up(height=64, width=64, saliency=True)
        assert all(stream.capture is None for stream in cuda.driver.streams.values())
        engine.enqueue = enqueue  # type: ignore[method-assign]
        cuda.face_diffuser.warm_up(height=64, width=64, saliency=True)


@pytest.mark.parametrize("call", ["memory", "pinned", "wait for the stream"])
def test_what_cuda_forbids_while_capturing_is_an_error(driver: CudaDriver, call: str) -> None:
    with opened_gpu(driver) as gpu, ExitStack() as stack:
        streams = Streams.opened(gpu, stack)
        forbidden = {
            "memory": lambda: gpu.memory(stack, 256, "nothing"),
            "pinned": lambda: gpu.pinned(stack, 256, "nothing"),
            "wait for the stream": streams.main.synchronize,
        }[call]
        with pytest.raises(CudaError, match="900"):
            captured(streams.main, stack, forbidden)  # type: ignore[arg-type]


def test_work_that_is_not_joined_is_an_error(driver: CudaDriver) -> None:
    with opened_gpu(driver) as gpu, ExitStack() as stack:
        streams = Streams.opened(gpu, stack)

        def fork_alone() -> None:
            streams.main.record(streams.forked)
            streams.side.wait(streams.forked)
            driver.put(streams.side.handle, lambda: None)

        with pytest.raises(CudaError, match="904"):
            captured(streams.main, stack, fork_alone)


def test_waiting_for_work_that_was_not_forked_is_an_error(driver: CudaDriver) -> None:
    with opened_gpu(driver) as gpu, ExitStack() as stack:
        streams = Streams.opened(gpu, stack)

        def never_forked() -> None:
            streams.side.record(streams.joined)
            streams.main.wait(streams.joined)

        with pytest.raises(CudaError, match="905"):
            captured(streams.main, stack, never_forked)


def test_work_beside_comes_after_the_fork_and_before_the_join(driver: CudaDriver) -> None:
    done: list[str] = []
    with opened_gpu(driver) as gpu, ExitStack() as stack:
        streams = Streams.opened(gpu, stack)

        def work() -> None:
            driver.put(streams.main.handle, lambda: done.append("before"))
            streams.beside(
                on_side=lambda stream: driver.put(stream, lambda: done.append("side")),
                on_main=lambda stream: driver.put(stream, lambda: done.append("main")),
            )
            driver.put(streams.main.handle, lambda: done.append("after"))

        captured(streams.main, stack, work).launch()
        assert not done
        streams.main.synchronize()
    assert done[0] == "before"
    assert sorted(done[1:3]) == ["main", "side"]
    assert done[3] == "after"


def test_memory_that_was_given_back_cannot_be_copied_to(driver: CudaDriver) -> None:
    with opened_gpu(driver) as gpu, ExitStack() as stack:
        stream, pinned = gpu.stream(stack), gpu.pinned(stack, 256, "nothing")
        with ExitStack() as own:
            memory = gpu.memory(own, 256, "nothing")
            stream.upload(memory.address, pinned.address, 256)
        with pytest.raises(Misuse, match="not all allocated"):
            stream.upload(memory.address, pinned.address, 256)


def test_two_bundles_draw_in_turns_in_one_process(bundle: Path, driver: CudaDriver) -> None:
    with on_cuda(bundle, driver=driver) as one, on_cuda(bundle, driver=driver) as other:
        first = one.face_diffuser.generate(small()).array
        second = other.face_diffuser.generate(small()).array
        third = one.face_diffuser.generate(small()).array
    assert (first == second).all()
    assert (first == third).all()
    assert not +driver.open


@pytest.mark.parametrize(
    ("settings", "element_type", "error", "reason"),
    [
        ({"architecture": 89}, "float32", ProviderUnavailableError, r"sm_89, .*for sm_90"),
        ({}, "float16", ContractError, r"kernels are for float16, tdm_unet has .*float32"),
    ],
)
def test_kernels_that_do_not_fit_are_named(
    settings: dict[str, Any], element_type: str, error: type[Exception], reason: str,
    golden_bundle: Path, tmp_path: Path,
) -> None:  # fmt: skip
    path = with_kernels(golden_bundle, tmp_path, element_type)
    driver = cuda_driver(path / KERNELS_FOLDER, **settings)
    with (
        pytest.raises(error, match=reason),
        on_cuda(path, driver=driver) as cuda,
    ):
        cuda.face_diffuser.warm_up(height=64, width=64)
    assert not +driver.open


def test_a_provider_that_does_not_open_leaves_nothing_behind(
    bundle: Path, driver: CudaDriver
) -> None:
    def refuse(*_: Any) -> HostProvider:
        raise ProviderUnavailableError("no plans")

    with pytest.raises(ProviderUnavailableError):
        GpuBackend(Bundle.open(bundle), driver, refuse)
    assert not +driver.open


def test_an_illegal_address_ends_the_request(bundle: Path, driver: CudaDriver) -> None:
    with on_cuda(bundle, driver=driver, capturable=False) as cuda:
        cuda.face_diffuser.generate(small())
        driver.launch_status = 700
        with pytest.raises(CudaError, match="700"):
            cuda.face_diffuser.generate(small())
        driver.launch_status = 0
        cuda.face_diffuser.generate(small())


def loses_at(component: Component, run: int, driver: CudaDriver) -> Callable[[HostEngine], None]:
    """Work of an engine's run that fails for good."""

    def spoil(engine: HostEngine) -> None:
        if engine.component is component and engine.runs == run:
            driver.lose()

    return spoil


@pytest.mark.parametrize("watched", [False, True])
def test_after_a_fault_all_is_closed_and_the_first_error_is_raised(
    *, watched: bool, bundle: Path, driver: CudaDriver
) -> None:
    waited = "cuEventQuery of a step's end" if watched else "cuStreamSynchronize of the main stream"
    spoil = loses_at(Component.SDM_UNET, 2, driver)
    with (
        pytest.raises(CudaError, match=rf"^{waited}: .* 700 \(700\): .*start it again") as raised,
        on_cuda(bundle, driver=driver, spoil=spoil) as cuda,
    ):
        cuda.face_diffuser.generate(small(), on_step=(lambda info: None) if watched else None)
    assert raised.value.__context__ is None
    assert raised.value.is_lost
    assert not +driver.open
    assert driver.current is None


def test_a_fault_that_nobody_waited_for_is_raised_when_all_is_closed(
    bundle: Path, driver: CudaDriver
) -> None:
    def stop(info: StepInfo) -> bool:
        return False

    with (
        pytest.raises(CudaError, match=r"cuStreamSynchronize of the main stream: .* 700"),
        on_cuda(bundle, driver=driver, spoil=loses_at(Component.TDM_UNET, 3, driver)) as cuda,
    ):
        # The second step is under way when the first ends the run.
        with pytest.raises(CancelledError):
            cuda.face_diffuser.generate(small(), on_step=stop)
        assert driver.open["memory"]
        assert not driver.lost
    assert not +driver.open


def test_a_fault_while_a_backend_is_set_up_leaves_nothing_open(
    bundle: Path, driver: CudaDriver
) -> None:
    with (
        pytest.raises(CudaError, match=r"cuStreamSynchronize of the main stream: .* 700") as raised,
        on_cuda(bundle, driver=driver, spoil=loses_at(Component.VAE_DECODER, 1, driver)) as cuda,
    ):
        cuda.face_diffuser.warm_up(height=64, width=64)
    assert raised.value.__context__ is None
    assert not +driver.open


def test_an_error_names_the_call_and_the_kernel_or_the_stage(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_cuda(bundle, driver=driver) as cuda:
        monkeypatch.setattr(driver, "launch_status", 701)
        with pytest.raises(CudaError, match=r"^cuLaunchKernel of kernel guided_step: .*701"):
            cuda.face_diffuser.warm_up(height=64, width=64)
        monkeypatch.setattr(driver, "launch_status", 0)
        cuda.face_diffuser.warm_up(height=64, width=64)
        refused = lambda *_: (719, None)  # noqa: E731
        monkeypatch.setattr(CudaDriver, "cuGraphLaunch", refused)
        with pytest.raises(CudaError, match=r"^cuGraphLaunch of a step of the scene stage: .*719"):
            cuda.face_diffuser.generate(small())


def test_where_pinned_memory_is_short_older_sizes_are_given_up(
    bundle: Path, driver: CudaDriver
) -> None:
    with on_cuda(bundle, driver=driver) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        driver.pinned_nbytes = driver.pinned.nbytes + 1
        cuda.face_diffuser.warm_up(height=64, width=64, guidance_rule="released")
        assert driver.open["executable"] == 3
        # Room for the maps of a run is asked for when it begins; here an older size makes it.
        driver.pinned_nbytes = 8 << 30
        cuda.face_diffuser.warm_up(height=64, width=64)
        driver.pinned_nbytes = driver.pinned.nbytes
        cuda.face_diffuser.generate(small(saliency=True))
        assert driver.pinned.nbytes < driver.pinned_nbytes
        cuda.face_diffuser.warm_up(height=64, width=64, num_images=2)
        driver.pinned_nbytes = driver.pinned.nbytes // 2
        expected = r"pins no \d+ MiB more of its memory for saliency maps; .*free -m"
        with pytest.raises(DeviceMemoryError, match=expected):
            cuda.face_diffuser.generate(small(saliency=True, num_images=2, num_inference_steps=99))
        driver.pinned_nbytes = 8 << 30
        cuda.face_diffuser.generate(small(saliency=True))
    assert not +driver.open


def test_a_graph_that_finds_no_room_is_short_of_memory(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = lambda *_: (2, None)  # noqa: E731
    with on_cuda(bundle, driver=driver) as cuda:
        monkeypatch.setattr(CudaDriver, "cuGraphInstantiate", full)
        with pytest.raises(DeviceMemoryError, match=r"a step of the .* stage does not fit"):
            cuda.face_diffuser.warm_up(height=64, width=64)
    assert not +driver.open


def test_a_callers_cuda_context_is_put_back(bundle: Path, driver: CudaDriver) -> None:
    driver.cuCtxSetCurrent("the caller's")
    contexts: list[object] = []

    def look() -> None:
        contexts.append(driver.current)

    def elsewhere(face_diffuser: FaceDiffuser) -> None:
        driver.cuCtxSetCurrent("of another thread")
        face_diffuser.generate(small())
        look()

    with on_cuda(bundle, driver=driver) as cuda:
        look()
        cuda.face_diffuser.warm_up(height=64, width=64)
        look()
        cuda.face_diffuser.generate(small())
        look()
        with pytest.raises(CancelledError):
            cuda.face_diffuser.generate(small(), on_step=lambda info: False)
        look()
        thread = threading.Thread(target=elsewhere, args=(cuda.face_diffuser,))
        thread.start()
        thread.join()
    look()
    with opened_gpu(driver):
        pass
    look()
    assert contexts == [*["the caller's"] * 4, "of another thread", *["the caller's"] * 2]


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, of which the interpreter is made
def test_a_picture_that_is_no_number_is_named(bundle: Path) -> None:
    def spoil(engine: HostEngine) -> None:
        # Its first run is the one that sets it up, its third the second image's.
        if engine.component is Component.VAE_DECODER and engine.runs == 3:
            engine.array("pixels")[..., 0] = np.nan

    with (
        on_cuda(bundle, spoil=spoil) as cuda,
        pytest.raises(NonFiniteError, match=r"vae_decoder .* infinity in image 2 of 3; "),
    ):
        cuda.face_diffuser.generate(small(num_images=3, output_type="np"))


def test_a_closed_face_diffuser_says_so(bundle: Path) -> None:
    with on_cuda(bundle) as cuda:
        pass
    for use in (cuda.face_diffuser.warm_up, lambda: cuda.face_diffuser.generate(small())):
        with pytest.raises(FaceDiffuserError, match="is closed; open the bundle again"):
            use()
