"""The GPU backend on the CUDA double: the same pictures as the host's, and nothing but launches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.contract import Component
from engines.errors import ConstantOutputError, FaceDiffuserError
from runtime import (
    CancelledError,
    FaceDiffuser,
    Fusion,
    GuidanceRule,
    NonFiniteError,
    OutputType,
    Scheduler,
    StepInfo,
)
from runtime.gpu.backend import GpuBackend
from runtime.gpu.programs import Concurrency
from tests.doubles.cuda_driver import cuda_driver
from tests.doubles.host_engine import WORKSPACE_NBYTES, HostEngine
from tests.doubles.torch_engine import TorchProvider
from tests.runtime.gpu.double import OnCuda, on_cuda, with_kernels
from tests.runtime.gpu.drawing import quiet_steps, relative_l2, small

# Both backends compute in float32, in other orders: some ulp a step.
SAME = 1e-4
UNETS = (Component.TDM_UNET, Component.SDM_UNET)


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_kernels(golden_bundle, tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def cuda(bundle: Path) -> Iterator[OnCuda]:
    with on_cuda(bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as opened:
        yield opened


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"guidance_rule": GuidanceRule.RELEASED, "scheduler": Scheduler.PNDM},
        {"fusion": Fusion.ADDITION},
        {"num_images": 2, "height": 128, "alpha": 0.0, "beta": 0.3, "num_inference_steps": 3},
        {"preset": "balanced", "num_inference_steps": 8, "num_images": 2},
        {"preset": "fast", "scheduler": "unipc-2", "num_inference_steps": 8},
        {"guidance_every": 3, "guidance_until": 0.9, "beta": 0.5, "num_inference_steps": 10},
        {"scheduler": "dpmpp-2m", "guidance_until": 0.6, "num_inference_steps": 5},
    ],
    ids=[
        "paper",
        "released pndm",
        "addition",
        "two images without a scene",
        "balanced",
        "fast unipc",
        "cached, then off",
        "off",
    ],
)
def test_both_backends_draw_the_same(
    fields: dict[str, Any], cuda: OnCuda, host: FaceDiffuser
) -> None:
    request = small(**fields)
    with quiet_steps(cuda.driver):
        found = cuda.face_diffuser.generate(request)
    assert relative_l2(found.array, host.generate(request).array) < SAME
    assert found.provider == "tensorrt"


def test_pictures_and_arrays_are_the_hosts(cuda: OnCuda, host: FaceDiffuser) -> None:
    pictures = cuda.face_diffuser.generate(small(output_type="pil", num_images=2)).pictures
    expected = host.generate(small(output_type="pil", num_images=2)).pictures
    for found, picture in zip(pictures, expected, strict=True):
        # A value that lies on the edge of two levels may fall to either.
        assert np.abs(np.asarray(found, np.int32) - np.asarray(picture, np.int32)).max() <= 1
    array = cuda.face_diffuser.generate(small(output_type="np", num_images=2)).array
    np.testing.assert_allclose(
        array, host.generate(small(output_type="np", num_images=2)).array, atol=1e-3
    )


def test_maps_and_masks_are_the_hosts(cuda: OnCuda, host: FaceDiffuser) -> None:
    request = small(saliency=True, alpha=0.0, beta=0.6)
    found, expected = (each.generate(request).saliency for each in (cuda.face_diffuser, host))
    assert found is not None
    assert expected is not None
    assert [each.step for each in found] == [each.step for each in expected] == [0, 1, 2]
    for one, other in zip(found, expected, strict=True):
        assert one.timestep == other.timestep
        np.testing.assert_array_equal(one.saliency.mask, other.saliency.mask)
        np.testing.assert_allclose(one.saliency.tdm, other.saliency.tdm, rtol=1e-3)
        np.testing.assert_allclose(one.saliency.sdm, other.saliency.sdm, rtol=1e-3)


def test_without_a_fusion_step_there_are_no_maps(cuda: OnCuda) -> None:
    assert cuda.face_diffuser.generate(small(saliency=True, alpha=0.5, beta=0.5)).saliency == ()
    request = small(saliency=True, fusion=Fusion.ADDITION)
    assert cuda.face_diffuser.generate(request).saliency == ()


def test_kept_maps_cost_one_copy_a_fusion_step_and_change_nothing(cuda: OnCuda) -> None:
    plain = cuda.face_diffuser.generate(small(beta=1.0))
    before = cuda.count("cuMemcpyDtoHAsync")
    kept = cuda.face_diffuser.generate(small(beta=1.0, saliency=True))
    # Three encoders, latents, faults and last predictions, and a copy for each fusion step.
    assert cuda.count("cuMemcpyDtoHAsync") - before == 6 + 2
    np.testing.assert_array_equal(kept.array, plain.array)
    assert plain.saliency is None


def test_a_step_is_one_graph_launch_and_nothing_is_captured_twice(cuda: OnCuda) -> None:
    cuda.face_diffuser.generate(small())
    launches, captures = cuda.count("cuGraphLaunch"), cuda.count("cuStreamBeginCapture")
    memory = dict(cuda.driver.open)
    for _ in range(3):
        cuda.face_diffuser.generate(small(seed=9, negative_prompt="rain"))
    assert cuda.count("cuGraphLaunch") - launches == 3 * 4
    assert cuda.count("cuStreamBeginCapture") == captures
    assert dict(cuda.driver.open) == memory


def test_warming_up_leaves_nothing_for_the_first_request(bundle: Path) -> None:
    with on_cuda(bundle) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64, saliency=True, fusion="saliency")
        assert cuda.count("cuStreamBeginCapture") == 3
        allocations = cuda.count("cuMemAlloc")
        cuda.face_diffuser.generate(small(saliency=True))
        assert cuda.count("cuStreamBeginCapture") == 3
        assert cuda.count("cuMemAlloc") == allocations


def test_each_kind_of_fusion_is_captured_on_its_own(cuda: OnCuda) -> None:
    area: dict[str, Any] = {"height": 64, "width": 192}
    cuda.face_diffuser.warm_up(**area)
    before = cuda.count("cuStreamBeginCapture")
    cuda.face_diffuser.warm_up(**area, saliency=True)
    cuda.face_diffuser.warm_up(**area, fusion="addition")
    # The scene's and the subject's steps are the same whatever the fusion.
    assert cuda.count("cuStreamBeginCapture") - before == 2


def test_tdm_and_sdm_have_a_workspace_each_and_the_decoder_shares(cuda: OnCuda) -> None:
    cuda.face_diffuser.generate(small())
    tdm, sdm = (cuda.engine(each).workspace for each in UNETS)
    assert abs(tdm - sdm) >= WORKSPACE_NBYTES[Component.TDM_UNET]
    assert cuda.engine(Component.VAE_DECODER).workspace == tdm
    bound = [cuda.engine(each).tensors for each in UNETS]
    assert bound[0]["latents"] == bound[1]["latents"]
    assert bound[0]["timestep"] == bound[1]["timestep"]


def test_side_by_side_and_one_after_the_other_draw_the_same(bundle: Path, cuda: OnCuda) -> None:
    with on_cuda(bundle, concurrency=Concurrency.SERIAL) as other:
        found = other.face_diffuser.generate(small(beta=1.0)).array
    np.testing.assert_array_equal(found, cuda.face_diffuser.generate(small(beta=1.0)).array)


def test_engines_that_cannot_be_captured_are_enqueued_between_the_kernels(
    bundle: Path, cuda: OnCuda
) -> None:
    with on_cuda(bundle, capturable=False, concurrency=None) as eager:
        with quiet_steps(eager.driver):
            found = eager.face_diffuser.generate(small()).array
        assert eager.count("cuStreamBeginCapture") == 0
        first_step = eager.driver.calls.index("launch guided_step")
        assert eager.driver.calls[first_step - 1] == "run tdm_unet"
    np.testing.assert_array_equal(found, cuda.face_diffuser.generate(small()).array)


def test_returning_false_cancels_and_the_next_request_is_whole(
    cuda: OnCuda, host: FaceDiffuser
) -> None:
    seen: list[StepInfo] = []

    def stop(info: StepInfo) -> bool:
        seen.append(info)
        return info.step < 2

    with pytest.raises(CancelledError, match="step 3 of 4"):
        cuda.face_diffuser.generate(small(), on_step=stop)
    assert [info.stage.value for info in seen] == ["scene", "scene", "fusion"]
    again = cuda.face_diffuser.generate(small()).array
    assert relative_l2(again, host.generate(small()).array) < SAME


def test_a_callback_waits_without_a_synchronization_and_may_read_latents(
    cuda: OnCuda, host: FaceDiffuser
) -> None:
    steps: dict[str, list[Any]] = {"cuda": [], "host": []}
    kept: list[StepInfo] = []

    def keep(info: StepInfo) -> None:
        kept.append(info)
        if info.step != 1:
            steps["cuda"].append(info.latents)

    synchronized, asked = cuda.count("cuStreamSynchronize"), cuda.count("cuEventQuery")
    cuda.face_diffuser.generate(small(), on_step=keep)
    # Three encoders, the start, the end; reading latents waits for nothing.
    assert cuda.count("cuStreamSynchronize") - synchronized == 5
    assert cuda.count("cuEventQuery") > asked
    host.generate(small(), on_step=lambda info: steps["host"].append(info.latents))
    for found, expected in zip(steps["cuda"], np.delete(steps["host"], 1, axis=0), strict=True):
        assert relative_l2(found, expected) < SAME
    with pytest.raises(FaceDiffuserError, match="step 1 are gone"):
        _ = kept[1].latents


def test_the_latents_of_an_earlier_request_are_gone(cuda: OnCuda) -> None:
    kept: list[StepInfo] = []
    cuda.face_diffuser.generate(small(), on_step=kept.append)
    assert np.isfinite(kept[-1].read_latents()).all()
    cuda.face_diffuser.generate(small(seed=6))
    with pytest.raises(FaceDiffuserError, match="step 3 are gone"):
        kept[-1].read_latents()


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, of which the interpreter is made
@pytest.mark.parametrize(
    ("component", "run", "found"),
    [
        (Component.TDM_UNET, 3, r"tdm_unet on tensorrt .* at step 1, timestep 501"),
        (Component.SDM_UNET, 2, r"sdm_unet on tensorrt .* at step 2, timestep 251"),
        (Component.SDM_UNET, 3, r"sdm_unet on tensorrt .* at step 3, timestep 1"),
        (Component.VAE_DECODER, 2, r"vae_decoder on tensorrt .*engines\.verify"),
        (Component.TEXT_ENCODER, 2, r"text_encoder on tensorrt .*engines\.verify"),
    ],
)
def test_a_number_that_is_not_finite_names_engine_and_step(
    component: Component, run: int, found: str, bundle: Path
) -> None:
    def spoil(engine: HostEngine) -> None:
        # The first run of each engine is the warm one.
        if engine.component is component and engine.runs == run:
            engine.array(list(engine.tensors)[-1])[..., 0] = np.nan

    with on_cuda(bundle, spoil=spoil) as cuda:
        with pytest.raises(NonFiniteError, match=found):
            cuda.face_diffuser.generate(small(output_type=OutputType.NP))
        picture = cuda.face_diffuser.generate(small(output_type=OutputType.NP)).array
        assert np.isfinite(picture).all()


@pytest.mark.parametrize("output_type", [OutputType.PIL, OutputType.NP, OutputType.LATENT])
@pytest.mark.parametrize("component", list(Component))
@pytest.mark.parametrize("number", [0.0, 0.25])
def test_an_engine_that_gives_the_same_everywhere_is_noticed(
    component: Component, number: float, output_type: OutputType, bundle: Path
) -> None:
    def spoil(engine: HostEngine) -> None:
        if engine.component is component:
            engine.array(list(engine.tensors)[-1])[...] = number

    request = small(output_type=output_type, num_images=2)
    with on_cuda(bundle, spoil=spoil) as cuda:
        if component is Component.VAE_DECODER and output_type is OutputType.LATENT:
            cuda.face_diffuser.generate(request)  # it decodes nothing
            return
        with pytest.raises(ConstantOutputError, match=f"{component} on tensorrt gave the same"):
            cuda.face_diffuser.generate(request)


def test_a_model_that_a_request_does_not_run_is_not_looked_at(bundle: Path) -> None:
    with on_cuda(bundle) as cuda:
        assert cuda.face_diffuser.generate(small(alpha=0.0, beta=0.0)).array.any()


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")  # the interpreter's numpy
@pytest.mark.parametrize("element", ["float16", "float32"])
def test_the_engines_of_the_gpu_tests_replay_what_they_do_eagerly(
    element: str, golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.request.MAX_LATENT", np.inf)
    bundle = with_kernels(golden_bundle, tmp_path, element)
    pictures = []
    for capturable in (True, False):
        driver = cuda_driver(bundle / KERNELS_FOLDER, element_type=element)
        provider = TorchProvider(element, "cpu", capturable, driver.put)
        backend = GpuBackend(
            Bundle.open(bundle), driver, partial(_given, provider), trials=1,
            concurrency=Concurrency.CONCURRENT,
        )  # fmt: skip
        with FaceDiffuser(Bundle.open(bundle), backend) as face_diffuser, quiet_steps(driver):
            pictures.append(face_diffuser.generate(small(beta=1.0, output_type="np")).array)
            enormous = np.full((1, 4, 8, 8), 1e38, np.float32)
            if element == "float16":
                with pytest.raises(NonFiniteError, match="tdm_unet on tensorrt"):
                    face_diffuser.generate(small(latents=enormous))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert pictures[0].std() > 0.1


def _given(provider: TorchProvider, *_: Any) -> TorchProvider:
    return provider


def test_stages_are_timed_by_the_gpus_clock(cuda: OnCuda) -> None:
    timings = cuda.face_diffuser.generate(small(output_type="pil")).timings_ms
    assert list(timings) == ["text", "references", "scene", "fusion", "subject", "decode", "total"]
    # On the double a piece of work takes a millisecond: an engine and a kernel for each scene step,
    # and in the fusion stage the engines side by side before two kernels.
    assert (timings["scene"], timings["fusion"]) == (4.0, 3.0)


@pytest.mark.parametrize("callback_ms", [0.0, 1.0])
def test_hearing_of_steps_costs_under_a_hundredth_of_a_step(
    callback_ms: float, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of host and GPU, where a step takes what an H100 takes."""
    driver = cuda_driver(bundle / KERNELS_FOLDER, node_ms=2.5)

    def sleep(seconds: float) -> None:
        assert driver.host_ms is not None
        # As measured: 0.1 ms of sleep take 0.176 ms.
        driver.host_ms += seconds * 1e3 + 0.076

    def on_step(info: StepInfo) -> None:
        assert driver.host_ms is not None
        driver.host_ms += callback_ms

    monkeypatch.setattr("runtime.gpu.run.time.sleep", sleep)
    steps_ms = []
    with on_cuda(bundle, driver=driver) as cuda:
        cuda.face_diffuser.warm_up(height=64, width=64)
        for each in (None, on_step):
            driver.host_ms = max(stream.now_ms for stream in driver.streams.values())
            timings = cuda.face_diffuser.generate(small(num_inference_steps=10), on_step=each)
            steps_ms.append(sum(timings.timings_ms[stage] for stage in ("scene", "fusion")))
    quiet_ms, heard_ms = steps_ms
    # Three steps of the scene, of two nodes, and of fusion, of three with its engines side by side.
    assert quiet_ms == pytest.approx(3 * 5.0 + 3 * 7.5, rel=0.01)
    assert heard_ms / quiet_ms < 1.01
