"""Memory is planned: nothing overlaps, all is aligned, and shared blocks are small enough."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.cuda.arena import ALIGNMENT, Layout, Workspaces
from engines.cuda.gpu import Gpu, Memory

_SHAPES = st.lists(st.lists(st.integers(1, 40), max_size=3).map(tuple), min_size=1, max_size=6)
_DTYPES = st.sampled_from([np.dtype(each) for each in ("uint8", "float16", "float32")])


@settings(derandomize=True, deadline=None)
@given(_SHAPES, _DTYPES)
def test_tensors_lie_aligned_one_after_another(
    shapes: list[tuple[int, ...]], dtype: np.dtype[Any]
) -> None:
    layout = Layout({f"t{index}": (shape, dtype) for index, shape in enumerate(shapes)})
    memory = cast(Memory, SimpleNamespace(address=1 << 20, nbytes=layout.nbytes))
    end = memory.address
    for (name, tensor), shape in zip(layout.on_device(memory).items(), shapes, strict=True):
        assert tensor.address % ALIGNMENT == 0
        assert end <= tensor.address < end + ALIGNMENT, name
        end = tensor.address + int(np.prod(shape)) * dtype.itemsize
    assert end <= memory.address + layout.nbytes < end + ALIGNMENT


class _Gpu:
    """Hands out numbered blocks and notes when each is given back."""

    def __init__(self) -> None:
        self.blocks: list[Memory] = []
        self.freed: list[Memory] = []

    def memory(self, stack: ExitStack, nbytes: int, _: str) -> Memory:
        block = cast(Memory, SimpleNamespace(address=len(self.blocks), nbytes=nbytes))
        self.blocks.append(block)
        stack.callback(self.freed.append, block)
        return block


def test_a_lease_takes_the_smallest_block_that_is_large_enough() -> None:
    gpu = _Gpu()
    workspaces, (large, small, lease) = Workspaces(cast(Gpu, gpu)), (ExitStack() for _ in range(3))
    first = workspaces.lease(small, 1000)
    second = workspaces.lease(large, 5000)
    assert len(gpu.blocks) == 2
    assert workspaces.lease(lease, 900) is first
    assert workspaces.lease(lease, 1000) is first
    assert workspaces.lease(lease, 1001) is second
    small.close()
    assert not gpu.freed, "another lease is on it"
    lease.close()
    assert gpu.freed == [first]
    large.close()
    assert gpu.freed == [first, second]
    with ExitStack() as stack:
        assert workspaces.lease(stack, 0).nbytes == ALIGNMENT, "nothing freed is given out again"
