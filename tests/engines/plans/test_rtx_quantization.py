"""NVIDIA's own builder on graphs in 8 bits, right and wrong on purpose; nothing executes a plan."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.bundle.folder import Bundle
from engines.bundle.plan_record import LibraryName, ToldBy
from engines.contract import Component
from engines.errors import PlanRefusedError
from engines.plans.building.build_log import BuildLog
from engines.plans.building.job import PlanJob
from engines.plans.building.monitor import Cancellation, progress_monitor
from engines.plans.building.plan_from_onnx import plan_from_onnx
from engines.plans.bundle_plans import PlanRequest, plan_job, plan_specs
from engines.plans.proofs.layers import EngineLayer, Operand, layers_of_log
from engines.plans.proofs.precision import proven_layers
from engines.plans.proofs.quantization import proven_quantization
from engines.tensorrt.libraries import TENSORRT_RTX
from engines.tensorrt.library import load, logger
from engines.tensorrt.target import plan_target
from export.quantization.forms import scales_per_channel
from export.quantization.qdq import Format, dequantizer_of, quantized_graph
from export.quantization.sites import Kind, Site

pytest.importorskip("tensorrt_rtx")

TOKENS, WIDTH = 77, 64
NODES = ("node_first", "node_second")


def _sites() -> list[Site]:
    names = (("node_first", "embeds", "a"), ("node_second", "bent", "b"))
    return [
        Site(node=node, kind=Kind.MATRIX, activation=activation, weight=weight, block="mid_block")
        for node, activation, weight in names
    ]


def _half_graph() -> ModelProto:
    """Two products in half precision, as a text encoder."""
    random = np.random.RandomState(0)
    weights = {name: random.standard_normal((WIDTH, WIDTH)).astype(np.float16) for name in "ab"}
    weights["table"] = random.standard_normal((256, WIDTH)).astype(np.float16)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embeds"], "node_table"),
        helper.make_node("MatMul", ["embeds", "a"], ["first"], "node_first"),
        helper.make_node("Sigmoid", ["first"], ["bent"], "node_bent"),
        helper.make_node("MatMul", ["bent", "b"], ["text_embeds"], "node_second"),
    ]
    ids: list[str | int | None] = ["n", TOKENS]
    graph = helper.make_graph(
        nodes,
        "text_encoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT32, ids)],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT16, [*ids, WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    model.ir_version = 11
    return model


def _quantized(form: Format, sites: Sequence[Site] | None = None) -> ModelProto:
    peaks = {(name, form): 4.0 for name in ("embeds", "bent")}
    asked = _sites() if sites is None else sites
    return quantized_graph(_half_graph(), asked, peaks, {Kind.MATRIX: form}, Path())


class _Session:
    """Builds in this process: the library keeps to the first logger that a process gave it."""

    def __init__(self) -> None:
        self.trt = load(TENSORRT_RTX)
        self.log = BuildLog(file=io.StringIO())
        self.logger = logger(self.trt, self.log.hear, self.log.hear_verbose)

    def layers(self, job: PlanJob) -> list[EngineLayer]:
        for kept in (self.log.errors, self.log.messages, self.log.verbose):
            kept.clear()
        monitor = progress_monitor(self.trt, lambda *_: None, Cancellation())
        plan_from_onnx(self.trt, self.logger, self.log, job, monitor)
        return layers_of_log(self.log.verbose)


@pytest.fixture(scope="module")
def session() -> Iterator[_Session]:
    yield _Session()


@pytest.fixture
def job(small_bundle: Path, tmp_path: Path) -> Callable[[ModelProto, int], PlanJob]:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))

    def made(model: ModelProto, architecture: int = 89) -> PlanJob:
        opened = Bundle.open(bundle, plans=False)
        request = PlanRequest(components=(Component.TEXT_ENCODER,))
        target = plan_target(LibraryName.TENSORRT_RTX, (architecture,))
        (spec,) = plan_specs(opened, target, request)
        job = plan_job(opened, spec)
        onnx.save(model, job.onnx)
        return replace(job, quantized_nodes=NODES)

    return made


Made = Callable[..., PlanJob]


@pytest.mark.parametrize("form", list(Format))
def test_a_graph_of_the_recipe_is_in_8_bits_and_scaled(
    form: Format, job: Made, session: _Session
) -> None:
    made = job(_quantized(form))
    layers = session.layers(made)
    found = proven_quantization(layers, made)
    assert found is not None
    assert found.nodes == 2
    told = proven_layers(layers, ToldBy.BUILD_LOG, made)
    assert told is not None
    assert told.half_layers == told.compute_layers


def test_a_weight_of_a_product_in_half_is_stored_in_8_bits(job: Made, session: _Session) -> None:
    first, second = _sites()
    peaks, formats = {("embeds", Format.INT8): 4.0}, {Kind.MATRIX: Format.INT8}
    model = quantized_graph(_half_graph(), [first], peaks, formats, Path(), stored=[second])
    weights = (dequantizer_of(second.weight),)
    made = replace(job(model), quantized_nodes=NODES[:1], stored_nodes=weights)
    found = proven_quantization(session.layers(made), made)
    assert found is not None
    assert (found.nodes, found.stored) == (1, 1)
    # A weight that stayed in half is noticed.
    onnx.save(_quantized(Format.INT8, [first]), made.onnx)
    found = proven_quantization(session.layers(made), made)
    assert found is not None
    assert (found.nodes, found.stored) == (1, 0)


@pytest.mark.parametrize("form", list(Format))
def test_a_scale_for_each_channel_is_refused_because_its_sums_are_unscaled(
    form: Format, job: Made, session: _Session
) -> None:
    made = job(scales_per_channel(_quantized(form), Path()))
    layers = session.layers(made)
    with pytest.raises(PlanRefusedError, match="leave their sum unscaled in half"):
        proven_quantization(layers, made)


def test_a_product_that_stayed_in_half_is_refused_by_its_name(job: Made, session: _Session) -> None:
    made = job(_quantized(Format.INT8, _sites()[:1]))
    layers = session.layers(made)
    with pytest.raises(PlanRefusedError, match=r"1 of 2 products are not in 8 bits.*node_second"):
        proven_quantization(layers, made)


def test_8_bits_that_write_single_precision_are_refused(job: Made, session: _Session) -> None:
    made = job(_quantized(Format.FP8))
    # The library writes none for so small a graph: a layer as it told of it, with a wide output.
    layers = [
        replace(layer, outputs=(Operand("Float", TOKENS * WIDTH),))
        if layer.multiplies_eight_bits
        else layer
        for layer in session.layers(made)
    ]
    with pytest.raises(PlanRefusedError, match="2 8-bit layers write single precision"):
        proven_quantization(layers, made)


def test_what_asks_for_nothing_proves_nothing(job: Made) -> None:
    made = replace(job(_half_graph()), quantized_nodes=())
    assert proven_quantization([], made) is None
