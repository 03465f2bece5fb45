"""The same with torch modules as engines: kernels of another library, with memory of its own.

They need a CUDA build of torch (the extra `torch-cuda`, or one that is there), and are asked for by
their own marker: `pytest tests/gpu -m torch_cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import KernelManifest
from runtime import FaceDiffuser, Request
from runtime.gpu.backend import GpuBackend
from runtime.gpu.programs import Concurrency
from tests.gpu.watched import Watched
from tests.runtime.gpu.drawing import quiet_steps, small

pytestmark = pytest.mark.torch_cuda


@pytest.fixture(scope="module", autouse=True)
def torch_on_cuda(gpu_driver: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch is built without CUDA; type: pip install -e '.[torch-cuda]'")


@contextmanager
def on_gpu(
    path: Path,
    driver: Any,
    *,
    concurrency: Concurrency | None = Concurrency.CONCURRENT,
    capturable: bool = True,
) -> Iterator[FaceDiffuser]:
    from tests.doubles.torch_engine import TorchProvider, on_torchs_stream

    bundle = Bundle.open(path)
    element = KernelManifest.read(path / KERNELS_FOLDER).element_type
    provider = TorchProvider(element, "cuda", capturable, on_torchs_stream)
    backend = GpuBackend(bundle, driver, lambda *_: provider, concurrency=concurrency)
    with FaceDiffuser(bundle, backend) as opened:
        yield opened


def native(**changes: Any) -> Request:
    """Six steps at 512 px, in all three stages."""
    return small(**({"height": 512, "width": 512, "num_inference_steps": 6} | changes))


@pytest.mark.parametrize("size", [{}, {"height": 768, "num_images": 2}])
def test_a_replayed_graph_gives_what_eager_launches_give(
    size: dict[str, int], gpu_bundle: Path, gpu_driver: Any
) -> None:
    request = native(saliency=True, **size)
    with on_gpu(gpu_bundle, gpu_driver, capturable=False) as eager:
        expected = eager.generate(request)
    with on_gpu(gpu_bundle, gpu_driver) as replayed:
        for _ in range(3):
            found = replayed.generate(request)
            np.testing.assert_array_equal(found.images, expected.images)
    assert found.saliency is not None
    assert expected.saliency is not None
    for one, other in zip(found.saliency, expected.saliency, strict=True):
        np.testing.assert_array_equal(one.saliency.mask, other.saliency.mask)


def test_side_by_side_and_one_after_the_other_draw_the_same(
    gpu_bundle: Path, gpu_driver: Any
) -> None:
    pictures = []
    for concurrency in Concurrency:
        with on_gpu(gpu_bundle, gpu_driver, concurrency=concurrency) as opened:
            pictures.append(opened.generate(native()).images)
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_steps_neither_allocate_nor_copy_nor_wait(gpu_bundle: Path, gpu_driver: Any) -> None:
    watched = Watched(gpu_driver)
    with on_gpu(gpu_bundle, watched) as opened:
        opened.warm_up(height=512, width=512)
        # What torch's modules are made of may be kernels and fills; ours are kernels.
        assert watched.nodes
        for nodes in watched.nodes:
            assert not nodes.keys() - {
                "CU_GRAPH_NODE_TYPE_KERNEL", "CU_GRAPH_NODE_TYPE_MEMSET",
                "CU_GRAPH_NODE_TYPE_MEMCPY",
            }  # fmt: skip
        with quiet_steps(watched):
            opened.generate(native())
        assert watched.calls["cuGraphLaunch"] == 6
