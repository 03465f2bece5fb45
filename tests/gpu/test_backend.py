"""Arena, streams, capture, cubins and fork-join on a real GPU, with torch modules as engines."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.cuda import driver as cuda
from engines.cuda.gpu import opened_gpu
from engines.errors import CancelledError, FaceDiffuserError, NonFiniteError
from export.cubins.build import build_cubins
from runtime import FaceDiffuser, Request
from runtime.gpu.backend import GpuBackend
from runtime.gpu.programs import Concurrency
from runtime.trajectory import RequestKind
from tests.doubles.torch_engine import TorchProvider, on_torchs_stream
from tests.runtime.gpu.double import quiet_steps, relative_l2, small

pytestmark = pytest.mark.gpu

REQUESTS = 100


@dataclass
class Watched:
    """The real driver, with an eye on what is called. quiet: only launches and events pass."""

    real: Any
    quiet: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    nodes: list[Counter[str]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if not name.startswith("cu"):
            return value

        def watched(*arguments: Any) -> Any:
            self.calls[name] += 1
            if self.quiet and not name.startswith(("cuGraphLaunch", "cuEvent", "cuLaunch")):
                raise AssertionError(f"{name} between the first step and the last")
            if name == "cuGraphInstantiate":
                self.nodes.append(self._kinds(arguments[0]))
            return value(*arguments)

        return watched

    def _kinds(self, graph: Any) -> Counter[str]:
        """What a captured graph is made of."""
        _, _, count = self.real.cuGraphGetNodes(graph)
        nodes, _ = cuda.checked(self.real.cuGraphGetNodes(graph, count))
        return Counter(cuda.checked(self.real.cuGraphNodeGetType(node)).name for node in nodes)


@pytest.fixture(scope="module")
def driver() -> cuda.Driver:
    try:
        return cuda.driver()
    except FaceDiffuserError as error:
        pytest.skip(str(error))


def _with_cubins(golden_bundle: Path, folder: Path, driver: cuda.Driver, precision: str) -> Path:
    """The golden bundle with real cubins for this GPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch is built without CUDA")
    path = Path(shutil.copytree(golden_bundle, folder / "bundle"))
    with opened_gpu(driver) as gpu:
        architecture = gpu.architecture
    build_cubins(path / KERNELS_FOLDER, precision=precision, architectures=(architecture,))
    return path


@pytest.fixture(scope="module")
def bundle(
    driver: cuda.Driver, golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """For torch engines in half precision."""
    return _with_cubins(golden_bundle, tmp_path_factory.mktemp("half"), driver, "fp16")


@pytest.fixture(scope="module")
def single_bundle(
    driver: cuda.Driver, golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """For the golden bundle's own ONNX models."""
    return _with_cubins(golden_bundle, tmp_path_factory.mktemp("single"), driver, "fp32")


@contextmanager
def on_gpu(
    path: Path,
    driver: Any,
    *,
    concurrency: Concurrency | None = Concurrency.CONCURRENT,
    capturable: bool = True,
) -> Iterator[FaceDiffuser]:
    bundle = Bundle.open(path)
    provider = TorchProvider("float16", "cuda", capturable, on_torchs_stream)
    backend = GpuBackend(bundle, driver, lambda *_: provider, concurrency=concurrency)
    with FaceDiffuser(bundle, backend) as opened:
        yield opened


def native(**changes: Any) -> Request:
    """Six steps at 512 px, in all three stages."""
    return small(**({"height": 512, "width": 512, "num_inference_steps": 6} | changes))


@pytest.mark.parametrize("size", [{}, {"height": 768, "width": 512, "num_images": 2}])
def test_a_replayed_graph_gives_what_eager_launches_give(
    size: dict[str, int], bundle: Path, driver: cuda.Driver
) -> None:
    with on_gpu(bundle, driver, capturable=False) as eager:
        expected = eager.generate(native(saliency=True, **size))
    with on_gpu(bundle, driver) as replayed:
        for _ in range(3):
            found = replayed.generate(native(saliency=True, **size))
            np.testing.assert_array_equal(found.images, expected.images)
    assert found.saliency is not None
    assert expected.saliency is not None
    for one, other in zip(found.saliency, expected.saliency, strict=True):
        np.testing.assert_array_equal(one.saliency.mask, other.saliency.mask)


def test_side_by_side_and_one_after_the_other_draw_the_same(
    bundle: Path, driver: cuda.Driver
) -> None:
    pictures = []
    for concurrency in (*Concurrency, None):
        with on_gpu(bundle, driver, concurrency=concurrency) as opened:
            pictures.append(opened.generate(native()).images)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_steps_neither_allocate_nor_copy_nor_wait(bundle: Path, driver: cuda.Driver) -> None:
    watched = Watched(driver)
    with on_gpu(bundle, watched) as opened:
        opened.warm_up(height=512, width=512)
        # What torch's modules are made of may be kernels and fills; ours are kernels.
        assert watched.nodes
        for nodes in watched.nodes:
            assert not nodes.keys() - {
                "CU_GRAPH_NODE_TYPE_KERNEL", "CU_GRAPH_NODE_TYPE_MEMSET",
                "CU_GRAPH_NODE_TYPE_MEMCPY",
            }  # fmt: skip
        with quiet_steps(watched):  # type: ignore[arg-type]
            opened.generate(native())
        assert watched.calls["cuGraphLaunch"] >= 6


def test_memory_stays_flat_over_many_requests(bundle: Path, driver: cuda.Driver) -> None:
    with on_gpu(bundle, driver) as opened, opened_gpu(driver) as gpu:
        opened.generate(native())
        before = gpu.free_nbytes()[0]
        for seed in range(REQUESTS):
            opened.generate(native(seed=seed))
        assert gpu.free_nbytes()[0] == before


def test_two_bundles_draw_in_turns_in_one_process(bundle: Path, driver: cuda.Driver) -> None:
    with on_gpu(bundle, driver) as one, on_gpu(bundle, driver) as other:
        first, second = one.generate(native()).images, other.generate(native()).images
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(one.generate(native()).images, first)


def test_a_cancelled_request_leaves_the_next_one_whole(bundle: Path, driver: cuda.Driver) -> None:
    with on_gpu(bundle, driver) as opened:
        expected = opened.generate(native()).images
        with pytest.raises(CancelledError, match="step 3 of 6"):
            opened.generate(native(), on_step=lambda info: info.step < 2)
        np.testing.assert_array_equal(opened.generate(native()).images, expected)


def test_latents_that_are_read_at_each_step_are_those_of_the_step(
    bundle: Path, driver: cuda.Driver
) -> None:
    steps: list[Any] = []
    with on_gpu(bundle, driver) as opened:
        keep: Callable[[Any], None] = lambda info: steps.append(info.latents)  # noqa: E731
        final = opened.generate(native(), on_step=keep).images
    np.testing.assert_array_equal(steps[-1], final)
    assert len({step.tobytes() for step in steps}) == 6


def test_a_number_that_is_not_finite_is_noticed(
    bundle: Path, driver: cuda.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.request.MAX_LATENT", np.inf)
    with on_gpu(bundle, driver) as opened:
        enormous = np.full((1, 4, 64, 64), np.finfo(np.float32).max, np.float32)
        with pytest.raises(NonFiniteError, match=r"_unet on tensorrt produced NaN or infinity"):
            opened.generate(small(height=512, width=512, latents=enormous, seed=None))


def test_the_faster_way_through_the_fusion_stage_is_measured(
    bundle: Path, driver: cuda.Driver
) -> None:
    with on_gpu(bundle, driver, concurrency=None) as opened:
        opened.warm_up(height=512, width=512)
        backend = opened._drawn_on
        assert isinstance(backend, GpuBackend)
        programs = backend.programs(RequestKind(images=1, height=64, width=64))
        assert set(programs.measured_ms) == set(Concurrency)
        assert programs.measured_ms[programs.concurrency] == min(programs.measured_ms.values())


def test_onnx_runtimes_cuda_provider_draws_what_the_cpu_draws(single_bundle: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    request = native(guidance_rule="released")
    with FaceDiffuser.open(single_bundle, provider="onnxruntime-cpu") as host:
        expected = host.generate(request).images
    with FaceDiffuser.open(single_bundle, provider="onnxruntime-cuda") as opened:
        found = opened.generate(request).images
    # TF32 products have 11 bits: 5e-4 a product, over some hundred layers and six steps.
    assert relative_l2(found, expected) < 5e-2
