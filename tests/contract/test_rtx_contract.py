"""TensorRT for RTX itself has every name that we use, and answers as our double of a build does."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.contract.bindings import Surface, surface_of
from tests.contract.wanted import Want, missing, wanted_of_rtx
from tests.doubles import tensorrt_rtx as run_side
from tests.vendor import tensorrt as build_side

rtx = pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def surface() -> Surface:
    return surface_of(rtx)


def test_every_name_and_argument_we_use_exists_in_the_library(surface: Surface) -> None:
    wants = wanted_of_rtx()
    assert Want("BuilderFlag", "REQUIRE_USER_ALLOCATION") in wants
    assert Want("IExecutionContext", "is_stream_capturable", ("stream",), is_bool=True) in wants
    assert Want("ComputeCapability") in wants
    assert missing(wants, surface) == []
    assert missing({Want("BuilderFlag", "FP16")}, surface) == ["BuilderFlag.FP16 is gone"]


@pytest.mark.parametrize("double", [run_side, build_side])
def test_the_doubles_have_no_name_that_the_library_lacks(
    double: ModuleType, surface: Surface
) -> None:
    wants = set()
    for name in double.__all__:
        value = getattr(double, name)
        if inspect.isclass(value):
            members = {member for member in vars(value) if not member.startswith("_")}
            wants |= {Want(name, member) for member in members}
    assert len(wants) > 20
    assert missing(wants, surface) == []


class _Heard:
    """A logger of a module, and how severe what it was told is."""

    def __init__(self, module: Any) -> None:
        heard: list[str] = []

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                heard.append(severity.name)

        self.heard, self.logger = heard, Logger()


def _answers(module: Any, onnx: Path, monitor_says: bool) -> dict[str, Any]:  # noqa: FBT001
    """What a module answers to what a build asks of it."""
    heard = _Heard(module)
    builder = module.Builder(heard.logger)
    network = builder.create_network(0)
    parsed = module.OnnxParser(network, heard.logger).parse_from_file(str(onnx))
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    names = {tensor.name: (tuple(tensor.shape), tensor.dtype.name) for tensor in tensors}
    answers: dict[str, Any] = {"parsed": parsed, "tensors": names}
    config = builder.create_builder_config()
    answers["without a profile"] = builder.build_serialized_network(network, config)
    wrong = builder.create_optimization_profile()
    low, high = module.Dims((1, 77, 8)), module.Dims((2, 77, 8))
    answers["min above max"] = wrong.set_shape("text_embeds", high, low, low)
    answers["is it a profile"] = bool(wrong)
    answers["is it added"] = config.add_optimization_profile(wrong)
    config = builder.create_builder_config()
    for tensor in tensors[: network.num_inputs]:
        tensor.shape = module.Dims([1, *tuple(tensor.shape)[1:]])
    answers["static"] = [-1 in tuple(network.get_input(0).shape), network.num_inputs]

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None: ...
        def phase_finish(self, phase_name: str) -> None: ...
        def step_complete(self, phase_name: str, step: int) -> bool:
            return monitor_says

    monitor = Monitor()
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    answers["built"] = plan is not None
    answers["is bytes"] = None if plan is None else len(bytes(plan)) == plan.nbytes
    return answers


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_build_sides_double_answers_what_the_library_answers(
    goes_on: bool,  # noqa: FBT001
    small_bundle: Path,
) -> None:
    onnx = small_bundle / "onnx" / "fusion_mlp.onnx"
    expected = _answers(rtx, onnx, goes_on)
    assert expected["built"] == goes_on
    assert _answers(build_side, onnx, goes_on) == expected


@pytest.mark.parametrize("plan", [b"", b"not a plan at all" * 100, bytes(4096)])
def test_the_run_sides_double_refuses_what_the_library_refuses(plan: bytes) -> None:
    answers = []
    for module in (rtx, run_side):
        heard = _Heard(module)
        runtime = module.Runtime(heard.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        validity, diagnostics = runtime.get_engine_validity(plan)
        invalid = validity == module.EngineValidity.INVALID
        answers.append((engine, invalid, diagnostics, "ERROR" in heard.heard))
    assert answers[0] == answers[1] == (None, True, 32, True)
