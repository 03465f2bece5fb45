"""The harness with a clock and with runs that are known."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.analysis.costs import Cost
from benchmarks.analysis.peaks import roof_ms
from benchmarks.harness.timing import interleaved_ms, repeated_ms
from benchmarks.harness.workload import Workload, prompt
from benchmarks.measures.build import SaidLine, step_rows
from benchmarks.measures.roofline import at_least_reached, roofline_row
from benchmarks.measures.scaling import fits_of, picture_flop
from benchmarks.measures.throughput import Point, throughput_points, with_knees
from benchmarks.schema.facts import Peaks
from benchmarks.schema.scaling import LineFit, PowerFit
from benchmarks.schema.throughput import PointSkipped, ThroughputRow
from engines.contract import Component
from tests.benchmarks.made_up import peaks, scaling_row, throughput_row


def test_the_warm_up_does_not_count() -> None:
    clock, runs = itertools.count(step=0.5), []
    times = repeated_ms(
        lambda: runs.append(1), repeats=3, warmup=2, clock=lambda: float(next(clock))
    )
    assert len(runs) == 5
    assert times == [500.0] * 3


def test_runs_take_turns_and_none_always_goes_first() -> None:
    order: list[str] = []

    def run(name: str, ms: float) -> float:
        order.append(name)
        return ms

    times = interleaved_ms({"a": lambda: run("a", 1.0), "b": lambda: run("b", 2.0)}, rounds=12)
    assert times == {"a": [1.0] * 12, "b": [2.0] * 12}
    rounds = [tuple(order[i : i + 2]) for i in range(0, 24, 2)]
    assert {frozenset(each) for each in rounds} == {frozenset("ab")}
    assert set(rounds) == {("a", "b"), ("b", "a")}


def test_throughput_goes_along_images_then_along_processes() -> None:
    found = throughput_points((1, 2), 6)
    assert found == [Point(1, 1), Point(2, 1), Point(1, 2), Point(1, 4), Point(1, 6)]
    assert throughput_points((1,), 1) == [Point(1, 1)]


def test_each_throughput_curve_has_its_own_knee() -> None:
    rows = [
        throughput_row(images, processes, rate, knee=False)
        for images, processes, rate in ((1, 1, 1.0), (2, 1, 2.0), (4, 1, 2.02), (1, 2, 1.01))
    ]
    marked = with_knees([*rows, PointSkipped(images=8, processes=1, reason="no memory")])
    knees = [row.knee if isinstance(row, ThroughputRow) else None for row in marked]
    assert knees == [True, True, False, False, None]


def test_a_pictures_flops_are_those_of_its_stages() -> None:
    # 10 steps: 3 of the scene, 3 of the fusion, 4 of the subject stage (alpha 0.3, beta 0.6).
    price = {
        Component.TDM_UNET: 2, Component.SDM_UNET: 3, Component.VAE_DECODER: 100,
        Component.IMAGE_ENCODER: 1000, Component.TEXT_ENCODER: 10**4, Component.FUSION_MLP: 10**5,
    }  # fmt: skip

    def cost(component: Component, **sizes: int) -> Cost:
        flops = price[component] * sizes.get("rows", 1)
        return Cost(flops=flops, weights=0, io=0, operations=0)

    found = picture_flop(Workload(steps=10, images=2, people=2, size_px=128), cost)
    tdm, sdm = 2 * 4, 3 * 6
    assert found == 3 * tdm + 3 * (tdm + sdm) + 4 * sdm + 2 * 100 + 2 * 1000 + 10**4 + 10**5


def test_fits_are_lines_but_for_the_size() -> None:
    found = fits_of(
        [
            scaling_row("steps", 1, 3.0),
            scaling_row("steps", 3, 7.0),
            scaling_row("size_px", 64, 1.0),
            scaling_row("size_px", 128, 4.0),
        ]
    )
    steps, size = found["steps"], found["size_px"]
    assert isinstance(steps, LineFit)
    assert steps.slope_ms == pytest.approx(2.0)
    assert steps.intercept_ms == pytest.approx(1.0)
    assert isinstance(size, PowerFit)
    assert size.power_of_ms == pytest.approx(2.0)


def test_the_roof_is_arithmetic_or_memory_whichever_takes_longer() -> None:
    peak = peaks(flop_per_s=1e9, bytes_per_s=1e6)
    assert roof_ms(2e9, 1e6, peak, "fp32") == pytest.approx(2000)
    assert roof_ms(1e9, 3e6, peak, "fp32") == pytest.approx(3000)
    cost = Cost(2 * 10**9, 100, 25, 500)
    found = roofline_row(Component.VAE_DECODER, {"images": 1}, cost, 4000.0, peak)
    # 125 elements of 4 bytes take 0.5 ms of memory, 2 GFLOP take 2 s: half of the 4 s it took.
    assert found.share_of_roof == pytest.approx(0.5)
    assert found.gflop_per_s == pytest.approx(0.5)
    assert found.least_mb == pytest.approx(5e-4)


def test_a_builds_steps_last_until_the_next_line_and_keep_their_peak() -> None:
    said = [(0.0, "a: load"), (2.0, "a: export"), (5.0, "a within 1e-3"), (5.0, "b"), (6.0, "done")]
    samples = [(0.5, 10), (2.5, 70), (4.0, 50), (5.5, 20)]
    rows = step_rows([SaidLine(at, text) for at, text in said], samples)
    assert [(row.step, row.s, row.peak_rss_nbytes) for row in rows] == [
        ("a: load", 2.0, 10),
        ("a: export", 3.0, 70),
        ("b", 1.0, 20),
        ("whole build", 6.0, 70),
    ]


def test_a_workload_names_as_many_people_as_it_has_photos() -> None:
    for people in (1, 2, 3):
        request = Workload(people=people).request()
        assert len(request.references) == people
        assert prompt(people).count("<|image|>") == people


def test_no_call_is_above_the_peak_that_its_share_is_of() -> None:
    cost = Cost(flops=10**9, weights=1000, io=24, operations=4096)
    low = Peaks(flop_per_s={"fp32": 1e9, "bf16": 5.0}, bytes_per_s=1.0, side=8, peak_rss_nbytes=1)
    raised = at_least_reached(low, [(cost, 100.0), (cost, 200.0)])
    assert raised.flop_per_s == {"fp32": pytest.approx(1e10), "bf16": 5.0}
    assert raised.bytes_per_s == pytest.approx(1024 * 4 / 0.1)
    row = roofline_row(Component.VAE_DECODER, {"images": 1}, cost, 100.0, raised)
    shares = (row.share_of_matrix_peak, row.share_of_memory_peak, row.share_of_roof)
    assert max(shares) == pytest.approx(1.0)
    high = Peaks(flop_per_s={"fp32": 1e12}, bytes_per_s=1e12, side=8, peak_rss_nbytes=1)
    assert at_least_reached(high, [(cost, 100.0)]) == high
