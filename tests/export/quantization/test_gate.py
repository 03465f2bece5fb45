"""Whether 8 bits are close enough, and what stays in half where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization, QuantizationError, QuantizationRecipe
from engines.bundle.records import to_json
from engines.contract import NOISE_PREDICTORS, Component
from export.checks.parity import ParityError
from export.quantization import build as building
from export.quantization.calibration import Ranges
from export.quantization.calls import Call
from export.quantization.gate import holds, measured_error
from export.quantization.pictures import PROMPTS, Calibration, calibration_of
from export.quantization.sites import Kind, Site
from tests.doubles.small_quantized import add_quantized

GOOD = QuantizationError(call=0.01, call_bound=0.02, guided=0.03, guided_bound=0.05, calls=3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GOOD, True),
        (replace(GOOD, call=0.021), False),
        (replace(GOOD, guided=0.051), False),
        (replace(GOOD, call=float("nan")), False),
        (replace(GOOD, guided=float("nan")), False),
        (replace(GOOD, call=0.02, guided=0.05), True),
    ],
)
def test_both_bounds_must_hold_and_what_is_no_number_holds_none(
    *, error: QuantizationError, expected: bool
) -> None:
    assert holds(error) is expected


def _graph_that_answers_its_latents(folder: Path) -> Path:
    """What stands for a graph in 8 bits: its error is what its latents are off."""
    names, kind = ("latents", "prompt_embeds", "noise_prediction"), TensorProto.FLOAT
    latents, embeds, answer = (
        helper.make_tensor_value_info(name, kind, ["passes", *rest])
        for name, rest in zip(names, ([4, 2, 2], [1], [4, 2, 2]), strict=True)
    )
    node = helper.make_node("Identity", ["latents"], ["noise_prediction"])
    graph = helper.make_graph([node], "unet", [latents, embeds], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.save(model, folder / "unet.cpu.onnx")
    return folder / "unet.cpu.onnx"


def _call(component: Component, off: tuple[float, ...]) -> Call:
    """A call whose passes are off by these shares: prediction 1, 2, ... against what is found."""
    whole = np.arange(1, len(off) + 1, dtype=np.float32)[:, None, None, None]
    prediction = whole * np.ones((1, 4, 2, 2), np.float32)
    found = prediction * (1 + np.array(off, np.float32)[:, None, None, None])
    inputs = {"latents": found, "prompt_embeds": np.zeros((len(off), 1), np.float32)}
    return Call(component=component, inputs=inputs, prediction=prediction, inner={})


def test_the_worst_call_and_the_mean_of_the_guided_noise_are_what_is_held_to_bounds(
    tmp_path: Path,
) -> None:
    path, sdm, tdm = _graph_that_answers_its_latents(tmp_path), *reversed(NOISE_PREDICTORS)
    calls = [_call(sdm, (0.0, 0.01, 0.02)), _call(sdm, (0.01, 0.0, 0.0)), _call(sdm, (0, 0, 0))]
    error = measured_error(path, calls)
    # Passes 1, 2, 3: off by 0.02 and 0.06 of sqrt(14), then by 0.01 of it.
    assert error.call == pytest.approx(np.hypot(0.02, 0.06) / np.sqrt(14), rel=1e-4)
    # Guided: 1 + 5 * (3 - 2) = 6, off by 5 * (0.06 - 0.02), then by 0.01, then not at all.
    assert error.guided == pytest.approx((0.2 + 0.01 + 0) / 6 / 3, rel=1e-3)
    assert (error.call_bound, error.guided_bound, error.calls) == (2.5e-2, 5e-2, 3)
    alone = measured_error(path, [_call(tdm, (0.0, 0.01))])
    assert (alone.call_bound, alone.calls) == (1.5e-2, 1)
    # Of two passes the first is where guidance starts and points from: 1 + 5 * (2 - 1) = 6.
    assert alone.guided == pytest.approx(5 * 0.02 / 6, rel=1e-3)
    both = measured_error(path, [_call(tdm, (0.0, 0.0)), _call(sdm, (0.0, 0.0, 0.0))])
    assert both.call_bound == 2.5e-2, "one graph for both has the wider bound"


def _site(block: str) -> Site:
    return Site(
        node=block, kind=Kind.MATRIX, activation="x", weight=block, block=block, widens=True
    )


class _ErringBench(building.Bench):
    """A bench whose graphs err by what their blocks are said to err alone."""

    def __init__(self, alone: dict[str, float], *, binding: bool) -> None:
        self.alone = alone
        self._calibration = Calibration(binding=binding)
        self._sites = {Component.SDM_UNET: [_site(block) for block in alone]}
        self.recipes: list[QuantizationRecipe] = []

    def _written(
        self,
        component: Component,
        quantization: Quantization,
        asked: Sequence[Site],
        stored: Sequence[Site] = (),
    ) -> QuantizationError:
        return replace(GOOD, guided=sum(self.alone[site.block] for site in asked))

    def _published(
        self,
        component: Component,
        quantization: Quantization,
        digest: str,
        recipe: QuantizationRecipe,
        error: QuantizationError,
    ) -> Any:
        self.recipes.append(recipe)


def _recipe(
    alone: dict[str, float], *, binding: bool = True
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    said: list[str] = []
    bench = _ErringBench(alone, binding=binding)
    bench.quantized(Component.SDM_UNET, Quantization.INT8, "", said.append)
    (recipe,) = bench.recipes
    # All sites here are matrices that widen: in half, their weights are in 8 bits but for the last.
    last = [*alone][-1]
    assert {*recipe.weights} == {f"dq.{block}" for block in recipe.half_blocks if block != last}
    return recipe.nodes, recipe.half_blocks, said


def test_the_last_two_blocks_stay_in_half_and_the_rest_where_it_may() -> None:
    nodes, half, said = _recipe({"a": 0.01, "b": 0.01, "c": 9.0, "d": 9.0})
    assert (nodes, half) == (("a", "b"), ("c", "d"))
    assert len(said) == 1


def test_what_errs_most_alone_falls_back_to_half_first_and_is_named() -> None:
    nodes, half, said = _recipe({"a": 0.02, "b": 0.06, "c": 0.04, "d": 9.0, "e": 9.0})
    assert nodes == ("a",)
    assert half == ("d", "e", "b", "c")
    assert [line for line in said if "stays in half" in line] == [
        "sdm_unet in int8: b stays in half",
        "sdm_unet in int8: c stays in half",
    ]


def test_of_random_weights_no_bound_makes_a_block_fall_back_but_every_number_is_finite() -> None:
    drifting = {"a": 0.02, "b": 0.06, "c": 9.0, "d": 9.0}
    nodes, half, said = _recipe(drifting, binding=False)
    assert (nodes, half) == (("a", "b"), ("c", "d"))
    assert said[1:] == ["sdm_unet in int8: of random weights, the bounds say nothing"]
    assert calibration_of([], None, full_size=True).binding is False
    assert calibration_of([], None, full_size=False).binding
    nodes, half, _ = _recipe({"a": 0.02, "b": float("nan"), "c": 9.0, "d": 9.0}, binding=False)
    assert half == ("c", "d", "b")


def test_a_model_that_drifts_with_any_block_is_refused() -> None:
    with pytest.raises(ParityError, match="any of its blocks in int8; build without --int8"):
        _recipe({"a": 0.1, "b": 0.2, "c": 9.0, "d": 9.0})


def test_ranges_are_the_largest_of_all_calls_and_shared_by_whoever_shares_a_graph() -> None:
    tdm, sdm = Component.TDM_UNET, Component.SDM_UNET
    ranges = Ranges({tdm: ["x"], sdm: ["x", "prompt_embeds"]}, {tdm: tdm, sdm: tdm})
    many = np.zeros(100_000, np.float32)
    many[:5] = -50.0  # fewer than one in ten thousand
    many[5:50] = 4.0
    nothing = np.zeros((1, 4, 1, 1), np.float32)
    for component, inner, embeds in ((tdm, many, 1.0), (sdm, np.float32(0.5) * many, -3.0)):
        inputs = {"prompt_embeds": np.full(4, embeds, np.float32)}
        ranges.hear(
            Call(component=component, inputs=inputs, prediction=nothing, inner={"x": inner})
        )
    peaks = ranges.peaks(tdm)
    assert peaks.largest == {"x": 50.0, "prompt_embeds": 3.0}
    assert peaks.quantile["x"] == 4.0


def test_prompts_of_a_file_name_people_and_photos_are_photos(tmp_path: Path) -> None:
    from export.checkpoint.tensor_files import CheckpointError

    pictures, held_out = Calibration().pictures(), Calibration().held_out()
    assert held_out.seed not in {picture.seed for picture in pictures}
    assert held_out.prompt not in PROMPTS
    assert not set(held_out.photos) & {photo for each in pictures for photo in each.photos}
    assert len({picture.seed for picture in pictures}) == len(pictures)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a man <|image|> at sea\n\na woman <|image|> in a field\n")
    made = calibration_of([], prompts, full_size=False)
    assert [picture.prompt for picture in made.pictures()] == list(made.prompts)
    assert len(made.prompts) == 2
    assert made.digest() != calibration_of([], None, full_size=False).digest()
    assert calibration_of([], None, full_size=False).prompts == PROMPTS
    prompts.write_text("a man at sea\n")
    with pytest.raises(CheckpointError, match="a prompt on each line"):
        calibration_of([], prompts, full_size=False)
    with pytest.raises(CheckpointError, match="no photo to calibrate with"):
        calibration_of([prompts], None, full_size=False)


def test_what_an_earlier_build_finished_is_kept_for_the_same_inputs_and_whole_files_alone(
    small_copy: Path,
) -> None:
    add_quantized(small_copy)
    component, kind = Component.TDM_UNET, Quantization.INT8
    graph = Bundle.open(small_copy).component(component).quantized[kind]
    journal = small_copy / "build" / "tdm_unet.int8.json"
    assert building._kept(small_copy, component, kind, graph.input_digest) is None
    journal.write_text(to_json(graph))
    assert building._kept(small_copy, component, kind, graph.input_digest) == graph
    assert building._kept(small_copy, component, kind, "of other inputs") is None
    journal.write_text("{}")
    assert building._kept(small_copy, component, kind, graph.input_digest) is None
    journal.write_text(to_json(graph))
    file = small_copy / graph.cpu_onnx
    file.write_bytes(bytes(file.stat().st_size))
    assert building._kept(small_copy, component, kind, graph.input_digest) is None
