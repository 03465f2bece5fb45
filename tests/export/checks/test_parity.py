"""The export's gate: what drifts or is not finite is refused, on every one of its inputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component
from engines.onnxruntime.cpu import OnnxRuntimeEngine
from export.checks import parity
from export.checks.parity import (
    GateCase,
    ParityError,
    example_inputs,
    gate_inputs,
    measured_parity,
)
from tests.doubles.small_bundle import DIMENSIONS, WIDTH

COMPONENT = Component.FUSION_MLP
SHAPE = (1, 77, WIDTH)


@pytest.fixture
def graph(small_bundle: Path) -> Path:
    return small_bundle / "onnx" / f"{COMPONENT}.cpu.onnx"


@pytest.fixture
def cases(graph: Path) -> list[GateCase]:
    """Two cases with the graph's own answers."""
    engine = OnnxRuntimeEngine(COMPONENT, graph)
    found = []
    for inputs in gate_inputs(COMPONENT, DIMENSIONS):
        output = np.empty((len(inputs["text_embeds"]), *SHAPE[1:]), np.float32)
        buffers = {name: value.numpy() for name, value in inputs.items()}
        engine.bind(buffers | {"augmented_embeds": output})
        engine.enqueue()
        found.append(GateCase(inputs, output))
    engine.close()
    return found


def _scaled(case: GateCase, factor: float) -> GateCase:
    return GateCase(case.inputs, case.output * np.float32(factor))


def test_a_graph_that_computes_what_torch_does_passes_with_what_was_measured(
    graph: Path, cases: list[GateCase]
) -> None:
    measured = measured_parity(graph, COMPONENT, cases, bound=1e-6)
    assert (measured.bound, measured.cases) == (1e-6, 2)
    assert measured.relative_l2 < 1e-6


@pytest.mark.parametrize("drifting", [0, 1])
def test_the_worst_case_counts_wherever_it_stands(
    drifting: int, graph: Path, cases: list[GateCase]
) -> None:
    cases[drifting] = _scaled(cases[drifting], 2.0)
    assert measured_parity(graph, COMPONENT, cases, bound=0.51).relative_l2 == pytest.approx(0.5)
    with pytest.raises(ParityError, match=r"fusion_mlp.cpu.onnx is 5.00e-01 from .*5e-01.*--fp32"):
        measured_parity(graph, COMPONENT, cases, bound=0.49)


@pytest.mark.parametrize("spoiled", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_refused(
    value: float, spoiled: int, graph: Path, cases: list[GateCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = OnnxRuntimeEngine.enqueue
    runs: list[OnnxRuntimeEngine] = []

    def spoils(engine: OnnxRuntimeEngine) -> None:
        enqueue(engine)
        if len(runs) == spoiled:
            engine._buffers["augmented_embeds"][0, 5, 3] = value
        runs.append(engine)

    monkeypatch.setattr(OnnxRuntimeEngine, "enqueue", spoils)
    with pytest.raises(ParityError, match=r"fusion_mlp.cpu.onnx produces NaN or infinity"):
        measured_parity(graph, COMPONENT, cases, bound=1e9)


def test_a_distance_that_is_no_number_exceeds_every_bound(
    graph: Path, cases: list[GateCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = iter([float("nan"), 0.0])
    monkeypatch.setattr(parity, "relative_l2", lambda *_: next(distances))
    with pytest.raises(ParityError, match="nan from its torch module"):
        measured_parity(graph, COMPONENT, cases, bound=1e9)


def test_a_module_that_is_not_finite_itself_is_named() -> None:
    class Broken(torch.nn.Module):
        def forward(self, *_: torch.Tensor, **__: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=torch.tensor([1.0, torch.nan]))

    with pytest.raises(ParityError, match="torch module of text_encoder itself gives NaN"):
        parity.gate_cases(Broken(), Component.TEXT_ENCODER, DIMENSIONS)


@pytest.mark.parametrize("component", Component)
def test_inputs_cover_counts_sizes_and_timesteps_and_honor_the_contract(
    component: Component,
) -> None:
    contract, every = CONTRACTS[component], list(gate_inputs(component, DIMENSIONS))
    for inputs in [*every, example_inputs(component, DIMENSIONS)]:
        assert list(inputs) == [tensor.name for tensor in contract.inputs]
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        # Raises where a shape is none of the contract's.
        assert contract.sizes(shapes)
    first = [inputs[contract.inputs[0].name] for inputs in every]
    counts = {len(value) for value in first}
    assert 1 in counts and max(counts) > 1
    if component in NOISE_PREDICTORS:
        # Two images at two timesteps: a graph that took the first's for both would differ.
        assert [inputs["timestep"].tolist() for inputs in every] == [[981], [501, 901], [21]]
        passes = {len(i["prompt_embeds"]) // len(i["latents"]) for i in every}
        assert passes == {2, 3}
    if "latents" in every[0]:
        sizes = {tuple(value.shape[2:]) for value in first}
        assert any(h > w for h, w in sizes) and any(h < w for h, w in sizes)
        assert min(example_inputs(component, DIMENSIONS)["latents"].shape) >= 2
