"""In low memory the U-Nets take turns on the GPU: the same pictures, and what they take at most."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import KERNELS_FOLDER
from engines.contract import ENCODER_ROWS, NOISE_PREDICTORS, Component
from engines.errors import CancelledError, DeviceMemoryError, NonFiniteError
from runtime import Request, StepInfo
from tests.doubles.cuda_driver import CudaDriver, cuda_driver
from tests.doubles.host_engine import WEIGHTS_NBYTES, WORKSPACE_NBYTES, HostEngine, HostProvider
from tests.runtime.gpu.double import OnCuda, on_cuda, with_kernels
from tests.runtime.gpu.drawing import REFERENCE, small

TDM, SDM, DECODER = Component.TDM_UNET, Component.SDM_UNET, Component.VAE_DECODER
NO_FUSION: dict[str, Any] = {"alpha": 0.5, "beta": 0.5}
MIB = 1 << 20


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_kernels(golden_bundle, tmp_path_factory.mktemp("turns"))


@pytest.fixture(scope="module")
def expected(bundle: Path) -> Iterator[Callable[[Request], Any]]:
    """What is drawn where all engines stay."""
    with on_cuda(bundle) as cuda:
        yield lambda request: cuda.face_diffuser.generate(request).array


@pytest.fixture
def driver(bundle: Path) -> CudaDriver:
    return cuda_driver(bundle / KERNELS_FOLDER)


def takes(*components: Component) -> int:
    """Weights of these, and one activation memory for all."""
    weights = sum(WEIGHTS_NBYTES[each] for each in components)
    return weights + max(WORKSPACE_NBYTES[each] for each in components)


def empty_nbytes(cuda: OnCuda) -> int:
    """What is on the device of a size that was drawn, without any engine."""
    with cuda.backend.active():
        cuda.backend._parts.residents.hold(())
    return cuda.driver.device.nbytes


def opened_since(cuda: OnCuda, start: int) -> list[str]:
    opened = [call for call in cuda.driver.calls[start:] if call.startswith("open ")]
    return [call.removeprefix("open ") for call in opened]


@pytest.mark.parametrize("capturable", [True, False])
def test_pictures_are_equal_bit_for_bit_whatever_was_drawn_before(
    capturable: bool,  # noqa: FBT001
    bundle: Path,
    expected: Callable[[Request], Any],
) -> None:
    requests = [
        small(),
        small(seed=9, output_type="np"),
        small(height=128, num_images=2),
        small(guidance_rule="released", saliency=True),
        small(preset="balanced", num_inference_steps=8),
        small(**NO_FUSION),
        small(alpha=0.0, beta=0.5),
        small(alpha=0.0, beta=0.0, output_type="np"),
        small(),
    ]
    with on_cuda(bundle, low_memory=True, capturable=capturable) as cuda:
        for request in requests:
            cuda.face_diffuser.encode_reference(REFERENCE)
            found = cuda.face_diffuser.generate(request)
            np.testing.assert_array_equal(found.array, expected(request))


@pytest.mark.parametrize(
    ("stages", "most"),
    [
        ({}, takes(TDM, SDM)),
        (NO_FUSION, takes(SDM)),
        ({"alpha": 1.0, "beta": 1.0}, takes(TDM)),
        ({"alpha": 0.0, "beta": 0.0}, takes(SDM)),
    ],
    ids=["all stages", "no fusion", "scene alone", "subject alone"],
)
def test_at_most_the_engines_of_a_stage_and_one_activation_memory_are_on_the_device(
    stages: dict[str, Any], most: int, bundle: Path, driver: CudaDriver
) -> None:
    request = small(output_type="np", **stages)
    with on_cuda(bundle, driver=driver, low_memory=True) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        empty = empty_nbytes(cuda)
        for _ in range(2):
            driver.device.peak_nbytes = 0
            cuda.face_diffuser.generate(request)
            assert driver.device.peak_nbytes == empty + most
            assert driver.device.nbytes == empty + takes(DECODER)
            assert not driver.open["executable"]
    with on_cuda(bundle, driver=driver) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        # All weights, and TDM's and SDM's activations side by side.
        assert driver.device.nbytes > sum(WEIGHTS_NBYTES.values()) + sum(
            WORKSPACE_NBYTES[each] for each in NOISE_PREDICTORS
        )


def test_setting_a_size_up_needs_one_engine_at_a_time(bundle: Path, driver: CudaDriver) -> None:
    with on_cuda(bundle, driver=driver, low_memory=True) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        empty, start = empty_nbytes(cuda), len(driver.calls)
        driver.device.peak_nbytes = 0
        cuda.face_diffuser.warm_up(height=64, width=64, guidance_rule="released")
        assert driver.device.peak_nbytes < empty + takes(SDM)
        assert opened_since(cuda, start) == [TDM, SDM, DECODER]
        # One size is kept, and the other is as good as never drawn.
        assert abs(empty_nbytes(cuda) - empty) < 64 << 10
        start = len(driver.calls)
        cuda.face_diffuser.warm_up(height=64, width=64, guidance_rule="released")
        assert opened_since(cuda, start) == []


def test_each_engine_is_opened_once_a_picture(bundle: Path, driver: CudaDriver) -> None:
    with on_cuda(bundle, driver=driver, low_memory=True) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        for _ in range(2):
            start = len(driver.calls)
            cuda.face_diffuser.generate(small(output_type="np"))
            encoders = [Component.IMAGE_ENCODER, Component.TEXT_ENCODER, Component.FUSION_MLP]
            assert set(encoders) == set(ENCODER_ROWS)
            assert opened_since(cuda, start) == [*encoders, TDM, SDM, DECODER]
            for each in NOISE_PREDICTORS:
                before = driver.calls[start : driver.calls.index(f"close {each}", start)]
                captured = before.count("cuStreamBeginCapture")
                assert captured == before.count("close executable") > 0, "graphs before engines"
            # SDM takes more to run than TDM, so that what TDM ran in moves.
            fusion = driver.calls[driver.calls.index(f"open {SDM}", start) :]
            assert fusion.index("close executable") < fusion.index("cuStreamBeginCapture")


def test_sdm_is_opened_while_the_scenes_steps_are_under_way(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: dict[Component, int] = {}
    opened = HostProvider.open

    def watched(provider: HostProvider, component: Component, shapes: Any) -> HostEngine:
        main = max(driver.streams.values(), key=lambda stream: len(stream.queue))
        under_way[component] = len(main.queue)
        return opened(provider, component, shapes)

    with on_cuda(bundle, driver=driver, low_memory=True) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        monkeypatch.setattr(HostProvider, "open", watched)
        cuda.face_diffuser.generate(small(output_type="np"))
        # Two graphs of the scene at least; what another must leave for waits until that is done.
        assert under_way[SDM] > 2
        assert under_way[DECODER] == 0
        cuda.face_diffuser.generate(small(**NO_FUSION))
        assert under_way[SDM] == 0


@pytest.mark.parametrize("tells", [True, False])
def test_a_fusion_that_cannot_fit_is_refused_with_its_bytes_and_other_requests_are_drawn(
    *, tells: bool, bundle: Path, driver: CudaDriver, expected: Callable[[Request], Any]
) -> None:
    def mib(nbytes: int) -> int:
        return -(-nbytes // MIB)

    with on_cuda(bundle, driver=driver, low_memory=True, tells=tells) as cuda:
        request = small(output_type="np", **NO_FUSION)
        cuda.face_diffuser.generate(request)
        # Both U-Nets' weights fit, but not to run them.
        driver.total_nbytes = empty_nbytes(cuda) + takes(TDM, SDM) - 1
        told = (
            rf"^Made-up GPU has \d+ of \d+ MiB free; the fusion stage takes at least "
            rf"{mib(takes(TDM, SDM))} MiB: its 2 U-Nets .* draw on the CPU, .*: nvidia-smi$"
        )
        for new, size in ((False, {}), (True, {"width": 128})):
            start, before = len(driver.calls), driver.device.nbytes
            with pytest.raises(DeviceMemoryError, match=told):
                cuda.face_diffuser.generate(small(**size))
            # What a plan does not tell is known once each engine was open by itself.
            looked_at = new and not tells
            assert ({TDM, SDM} <= set(opened_since(cuda, start))) == looked_at
            assert looked_at or driver.device.nbytes == before
            assert "launch guided_step" not in driver.calls[start:]
            assert "cuGraphLaunch" not in driver.calls[start:]
        found = cuda.face_diffuser.generate(request).array
        np.testing.assert_array_equal(found, expected(request))
        driver.total_nbytes += 1
        found = cuda.face_diffuser.generate(small()).array
        np.testing.assert_array_equal(found, expected(small()))


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, of which the interpreter is made
@pytest.mark.parametrize("component", [TDM, SDM, DECODER, Component.TEXT_ENCODER])
def test_after_an_engine_failed_the_next_picture_is_whole(
    component: Component, bundle: Path, expected: Callable[[Request], Any]
) -> None:
    broken = [component]

    def spoil(engine: HostEngine) -> None:
        if engine.component in broken:
            engine.array(list(engine.tensors)[-1])[..., 0] = np.nan

    request = small(output_type="np")
    with on_cuda(bundle, spoil=spoil, low_memory=True) as cuda:
        with pytest.raises(NonFiniteError, match=f"{component} on tensorrt"):
            cuda.face_diffuser.generate(request)
        broken.clear()
        np.testing.assert_array_equal(cuda.face_diffuser.generate(request).array, expected(request))


@pytest.mark.parametrize("component", [TDM, SDM, DECODER, Component.FUSION_MLP])
def test_after_an_engine_did_not_open_the_next_picture_is_whole(
    component: Component, bundle: Path, driver: CudaDriver, expected: Callable[[Request], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    opened = HostProvider.open

    def full(provider: HostProvider, asked: Component, shapes: Any) -> HostEngine:
        if asked is component:
            raise DeviceMemoryError(f"{component} does not fit")
        return opened(provider, asked, shapes)

    request = small(output_type="np")
    with on_cuda(bundle, driver=driver, low_memory=True) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        with monkeypatch.context() as planted:
            planted.setattr(HostProvider, "open", full)
            with pytest.raises(DeviceMemoryError, match=f"{component} does not fit"):
                cuda.face_diffuser.generate(request)
        np.testing.assert_array_equal(cuda.face_diffuser.generate(request).array, expected(request))
    assert not +driver.open


def test_after_a_cancelled_request_the_next_is_whole(
    bundle: Path, expected: Callable[[Request], Any]
) -> None:
    latents: list[Any] = []

    def stop(last: int, info: StepInfo) -> bool:
        latents.append(info.latents)
        return info.step < last

    with on_cuda(bundle, low_memory=True) as cuda:
        for last in (0, 2, 3):
            with pytest.raises(CancelledError, match=f"step {last + 1} of 4"):
                cuda.face_diffuser.generate(small(), on_step=partial(stop, last))
            found = cuda.face_diffuser.generate(small(), on_step=partial(stop, 4)).array
            np.testing.assert_array_equal(found, expected(small()))
            np.testing.assert_array_equal(latents[-1], found)


def test_two_threads_draw_in_turns(bundle: Path, expected: Callable[[Request], Any]) -> None:
    requests = [small(), small(height=128, output_type="np")]
    found: dict[int, list[Any]] = {0: [], 1: []}

    def draw(cuda: OnCuda, which: int) -> None:
        for _ in range(2):
            found[which].append(cuda.face_diffuser.generate(requests[which]).array)

    with on_cuda(bundle, low_memory=True) as cuda:
        threads = [threading.Thread(target=draw, args=(cuda, which)) for which in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for which, request in enumerate(requests):
        assert len(found[which]) == 2
        for array in found[which]:
            np.testing.assert_array_equal(array, expected(request))
