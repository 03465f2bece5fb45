"""Counted FLOPs and bytes against values worked out by hand, and engines made of torch modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.analysis.costs import cost_of, cost_of_call
from benchmarks.snf.torch_device import TorchProvider
from engines.bundle.manifest import Precision
from engines.contract import CONTRACTS, Component
from engines.engine import DeviceTensor
from engines.errors import ContractError
from export.checkpoint.model_facts import dimensions_of
from export.checkpoint.random_weights import random_checkpoint
from export.checks.parity import gate_inputs
from export.graph.modules import module_of, run
from export.source import ModelSource
from tests.benchmarks.peers.test_peers import SOURCE


@pytest.fixture(scope="module")
def source() -> ModelSource:
    return SOURCE.opened()


def test_a_linear_layer_costs_what_it_should() -> None:
    layer = nn.Linear(3, 5, bias=False, device="meta")
    found = cost_of_call(layer, {"input": torch.empty(7, 3, device="meta")})
    assert found.flops == 2 * 7 * 3 * 5
    assert (found.weights, found.io) == (15, 21 + 35)
    assert found.operations == 15 + 21 + 35


def test_a_view_moves_nothing() -> None:
    found = cost_of_call(nn.Flatten(), {"input": torch.empty(2, 3, 4, device="meta")})
    assert (found.flops, found.operations) == (0, 0)


def test_stable_diffusions_unet_costs_what_is_published() -> None:
    source = random_checkpoint()
    sizes = {"images": 1, "h": 64, "w": 64}
    dimensions = dimensions_of(source)
    one = cost_of(Component.TDM_UNET, source, dimensions, sizes | {"rows": 1})
    # 338.61 GMAC of convolutions and linear layers (DeepCache prints 338.83), 63.03 of attention.
    assert one.flops / 2e9 == pytest.approx(338.61 + 63.03, abs=0.01)
    assert one.weights == 859_520_964
    two = cost_of(Component.TDM_UNET, source, dimensions, sizes | {"rows": 2})
    # What both passes share, up to the first cross-attention, is computed once.
    assert 0.97 < two.flops / (2 * one.flops) < 0.98


def places(buffers: dict[str, Any]) -> dict[str, DeviceTensor]:
    return {
        name: DeviceTensor(buffer.ctypes.data, buffer.shape, buffer.dtype)
        for name, buffer in buffers.items()
    }


@pytest.mark.parametrize("component", list(Component))
def test_a_torch_engine_computes_its_module_in_place(
    component: Component, source: ModelSource
) -> None:
    inputs = next(iter(gate_inputs(component, dimensions_of(source))))
    expected = run(module_of(component, source), inputs).numpy()
    output = CONTRACTS[component].outputs[0].name
    buffers = {name: value.numpy() for name, value in inputs.items()}
    buffers[output] = np.full(expected.shape, np.nan, np.float32)
    engine = TorchProvider(source, "cpu", Precision.FP32).open(component, {})
    engine.bind(places(buffers), workspace=0, stream=0)
    engine.enqueue(stream=0)
    np.testing.assert_array_equal(buffers[output], expected)


def test_a_torch_engine_wants_the_contracts_tensors(source: ModelSource) -> None:
    engine = TorchProvider(source, "cpu", Precision.FP32).open(Component.FUSION_MLP, {})
    with pytest.raises(ContractError, match="before it was bound"):
        engine.enqueue(stream=0)
    with pytest.raises(ContractError, match="its own are"):
        engine.bind(places({"pixels": np.zeros(3, np.float32)}), workspace=0, stream=0)
