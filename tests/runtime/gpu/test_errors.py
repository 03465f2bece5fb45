"""What can go wrong on the GPU backend, how it ends, and that nothing is left behind."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import Component
from engines.cuda.driver import CudaError
from engines.cuda.gpu import opened_gpu
from engines.cuda.graph import captured
from engines.cuda.streams import Streams
from engines.errors import (
    ContractError,
    DeviceMemoryError,
    FaceDiffuserError,
    ProviderUnavailableError,
    RequestError,
)
from runtime.gpu.backend import MAX_SIZES, GpuBackend
from runtime.gpu.programs import Concurrency
from runtime.trajectory import RequestKind
from tests.doubles.cuda_driver import CudaDriver, Misuse, cuda_driver
from tests.doubles.host_engine import HostProvider
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
            "pinned": lambda: gpu.pinned(stack, 256),
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
        stream, pinned = gpu.stream(stack), gpu.pinned(stack, 256)
        with ExitStack() as own:
            memory = gpu.memory(own, 256, "nothing")
            stream.upload(memory.address, pinned.address, 256)
        with pytest.raises(Misuse, match="not all allocated"):
            stream.upload(memory.address, pinned.address, 256)


def test_two_bundles_draw_in_turns_in_one_process(bundle: Path, driver: CudaDriver) -> None:
    with on_cuda(bundle, driver=driver) as one, on_cuda(bundle, driver=driver) as other:
        first = one.face_diffuser.generate(small()).images
        second = other.face_diffuser.generate(small()).images
        third = one.face_diffuser.generate(small()).images
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


def test_a_closed_face_diffuser_says_so(bundle: Path) -> None:
    with on_cuda(bundle) as cuda:
        pass
    for use in (cuda.face_diffuser.warm_up, lambda: cuda.face_diffuser.generate(small())):
        with pytest.raises(FaceDiffuserError, match="is closed; open the bundle again"):
            use()
