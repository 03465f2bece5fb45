"""Arena, streams, capture, cubins and fork-join, with engines of stored predictions.

The CUDA driver, numpy and a bundle are all that these tests need. The host's backend draws from the
same predictions, so that everything but the engines is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import Bundle
from engines.cuda.gpu import opened_gpu
from engines.errors import CancelledError, NonFiniteError
from runtime import FaceDiffuser, Request
from runtime.gpu.backend import GpuBackend
from runtime.gpu.programs import Concurrency
from runtime.host.backend import HostBackend
from runtime.host.pool import EnginePool
from runtime.trajectory import RequestKind
from tests.doubles import stored_engine
from tests.gpu.conftest import Machine
from tests.gpu.watched import Watched
from tests.runtime.gpu.drawing import quiet_steps, relative_l2, small

# Predictions are equal bit by bit; what is computed from them in float32 is in another order.
SAME = 1e-4
# Nearer to a tie than this, float32 rounding decides a pixel; both sides round.
NEAR = 2e-6


@contextmanager
def on_gpu(
    machine: Machine,
    driver: Any = None,
    *,
    concurrency: Concurrency | None = Concurrency.CONCURRENT,
    capturable: bool = True,
    low_memory: bool = False,
) -> Iterator[FaceDiffuser]:
    bundle = Bundle.open(machine.bundle)
    engines = stored_engine.on_device(machine.element, capturable=capturable)
    backend = GpuBackend(
        bundle, driver or machine.driver, engines, concurrency=concurrency, low_memory=low_memory
    )
    with FaceDiffuser(bundle, backend) as opened:
        yield opened


@contextmanager
def on_host(machine: Machine) -> Iterator[FaceDiffuser]:
    bundle = Bundle.open(machine.bundle)
    pool = EnginePool(bundle, open_engine=stored_engine.on_host(machine.element))
    with FaceDiffuser(bundle, HostBackend(pool)) as opened:
        yield opened


def drawn(machine: Machine, **changes: Any) -> Request:
    """Six steps, in all three stages."""
    size = {"height": machine.side_px, "width": machine.side_px, "num_inference_steps": 6}
    return small(**(size | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "addition"},
        {"fusion": "addition", "num_images": 2, "guidance_rule": "released", "scheduler": "pndm"},
        {"fusion": "addition", "preset": "fast", "num_inference_steps": 8, "output_type": "np"},
    ],
    ids=["paper", "released pndm, two images", "fast, decoded"],
)
def test_the_gpu_draws_from_predictions_what_the_host_draws(
    changes: dict[str, Any], machine: Machine
) -> None:
    request = drawn(machine, **changes)
    with on_gpu(machine) as opened, on_host(machine) as host:
        assert relative_l2(opened.generate(request).array, host.generate(request).array) < SAME


def test_pixels_that_no_rounding_decides_go_to_the_model_that_the_host_takes(
    machine: Machine,
) -> None:
    request = drawn(machine, saliency=True, alpha=0.0, beta=0.1)
    with on_gpu(machine) as opened, on_host(machine) as host:
        found, expected = (each.generate(request).saliency for each in (opened, host))
    assert found is not None
    assert expected is not None
    (one,), (other,) = found, expected
    margin = np.log(other.saliency.sdm.astype(np.float64) / other.saliency.tdm)
    sure = np.abs(margin) > NEAR
    np.testing.assert_array_equal(one.saliency.mask[sure], other.saliency.mask[sure])
    assert sure.mean() > 0.99
    assert 0 < one.saliency.mask.mean() < 1
    np.testing.assert_allclose(one.saliency.tdm, other.saliency.tdm, rtol=1e-3)
    np.testing.assert_allclose(one.saliency.sdm, other.saliency.sdm, rtol=1e-3)


@pytest.mark.parametrize("size", [{}, {"tall": 1.5, "num_images": 2}])
def test_a_replayed_graph_gives_what_eager_launches_give(
    size: dict[str, Any], machine: Machine
) -> None:
    height = int(machine.side_px * size.pop("tall", 1) // 64 * 64)
    request = drawn(machine, saliency=True, output_type="np", height=height, **size)
    with on_gpu(machine, capturable=False) as eager:
        expected = eager.generate(request)
    with on_gpu(machine) as replayed:
        for _ in range(3):
            found = replayed.generate(request)
            np.testing.assert_array_equal(found.array, expected.array)
    assert found.saliency is not None
    assert expected.saliency is not None
    for one, other in zip(found.saliency, expected.saliency, strict=True):
        np.testing.assert_array_equal(one.saliency.mask, other.saliency.mask)


def test_side_by_side_and_one_after_the_other_draw_the_same(machine: Machine) -> None:
    pictures = []
    for concurrency in (*Concurrency, None):
        with on_gpu(machine, concurrency=concurrency) as opened:
            pictures.append(opened.generate(drawn(machine)).array)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_steps_neither_allocate_nor_copy_nor_wait(machine: Machine) -> None:
    watched = Watched(machine.driver)
    with on_gpu(machine, watched) as opened:
        opened.warm_up(height=machine.side_px, width=machine.side_px)
        with quiet_steps(watched):
            opened.generate(drawn(machine))
    # A launch a step; the rest replays what was captured when all was set up.
    assert watched.calls["cuGraphLaunch"] == 6
    if machine.real:
        kinds = {"CU_GRAPH_NODE_TYPE_KERNEL", "CU_GRAPH_NODE_TYPE_MEMCPY"}
        assert watched.nodes
        assert all(nodes.keys() <= kinds for nodes in watched.nodes)


def test_memory_stays_flat_over_many_requests(machine: Machine) -> None:
    with on_gpu(machine) as opened, opened_gpu(machine.driver) as gpu:
        opened.generate(drawn(machine))
        before = gpu.free_nbytes()[0]
        for seed in range(machine.many):
            opened.generate(drawn(machine, seed=seed))
        assert gpu.free_nbytes()[0] == before


@pytest.mark.parametrize("capturable", [True, False])
def test_in_low_memory_engines_take_turns_and_draw_the_same(
    *, capturable: bool, machine: Machine
) -> None:
    request = drawn(machine, output_type="np")
    with on_gpu(machine) as opened:
        expected = opened.generate(request).array
    with (
        on_gpu(machine, capturable=capturable, low_memory=True) as opened,
        opened_gpu(machine.driver) as gpu,
    ):
        opened.generate(request)
        before = gpu.free_nbytes()[0]
        for _ in range(machine.many):
            np.testing.assert_array_equal(opened.generate(request).array, expected)
            assert gpu.free_nbytes()[0] == before


def test_two_bundles_draw_in_turns_in_one_process(machine: Machine) -> None:
    request = drawn(machine)
    with on_gpu(machine) as one, on_gpu(machine) as other:
        first, second = one.generate(request).array, other.generate(request).array
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(one.generate(request).array, first)


def test_a_cancelled_request_leaves_the_next_one_whole(machine: Machine) -> None:
    with on_gpu(machine) as opened:
        expected = opened.generate(drawn(machine)).array
        with pytest.raises(CancelledError, match="step 3 of 6"):
            opened.generate(drawn(machine), on_step=lambda info: info.step < 2)
        np.testing.assert_array_equal(opened.generate(drawn(machine)).array, expected)


def test_latents_that_are_read_at_each_step_are_those_of_the_step(machine: Machine) -> None:
    steps: list[Any] = []
    with on_gpu(machine) as opened:
        keep: Callable[[Any], None] = lambda info: steps.append(info.latents)  # noqa: E731
        final = opened.generate(drawn(machine), on_step=keep).array
    np.testing.assert_array_equal(steps[-1], final)
    assert len({step.tobytes() for step in steps}) == 6


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")  # the interpreter's numpy
def test_a_number_that_is_not_finite_is_noticed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.request.MAX_LATENT", np.inf)
    side = machine.side_px // 8
    enormous = np.full((1, 4, side, side), np.finfo(np.float32).max, np.float32)
    with (
        on_gpu(machine) as opened,
        pytest.raises(NonFiniteError, match=r"tdm_unet on tensorrt produced NaN or infinity"),
    ):
        opened.generate(drawn(machine, latents=enormous, seed=None))


def test_the_faster_way_through_the_fusion_stage_is_measured(machine: Machine) -> None:
    side = machine.side_px
    with on_gpu(machine, concurrency=None) as opened:
        opened.warm_up(height=side, width=side)
        backend = opened._drawn_on
        assert isinstance(backend, GpuBackend)
        programs = backend.programs(RequestKind(images=1, height=side // 8, width=side // 8))
        assert set(programs.measured_ms) == set(Concurrency)
        assert programs.measured_ms[programs.concurrency] == min(programs.measured_ms.values())
