"""The report from records that are made up, and marked so; in a real browser where there is one."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.measures.report import ReportOptions, chosen, written_report
from benchmarks.pictures.text import latency_text, pipeline_rows
from benchmarks.report.cost import Tariff, cost_rows
from benchmarks.report.headings import heading
from benchmarks.report.plots import cost_plot, plot_of
from benchmarks.report.quantities import shown, sound
from benchmarks.schema.record import Machine, Record, Status
from benchmarks.schema.results import RESULTS, append
from benchmarks.schema.throughput import ThroughputRow
from tests.benchmarks import made_up

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report from every kind of record."""
    folder = tmp_path_factory.mktemp("report")
    for make in made_up.ALL:
        append(make(), folder / "results")
    skipped = made_up.not_measured("gpu", Status.SKIPPED, "there is no NVIDIA GPU <here>")
    append(skipped, folder / "results")
    written_report(ReportOptions(results=folder / "results", out=folder / "out"))
    return folder / "out"


def test_the_page_stands_alone(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert "<script" not in text
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []


def test_the_page_says_where_figures_come_from_and_what_is_missing(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    assert made_up.MARK in text
    assert "python -m benchmarks latency" in text
    assert "skipped: there is no NVIDIA GPU &lt;here&gt;" in text
    missing = "serving, kernels, cubins, build, curve, noticed, table1, device"
    assert f"No record of: {missing}." in text


@pytest.mark.parametrize("name", [make.__name__ for make in made_up.ALL])
def test_every_plot_has_something_on_it(name: str, folder: Path) -> None:
    pixels = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
    assert pixels.shape[1] > 600
    inked = (pixels < 250).any(axis=2).mean()
    assert 0.005 < inked < 0.5


def test_a_record_in_which_all_was_skipped_has_no_plot() -> None:
    for record in made_up.without_measured_rows():
        assert plot_of(record, None) is None


def test_the_newest_full_record_of_each_machine_and_model_is_shown() -> None:
    other = Machine(cpu="other", cpus=8)
    records = [
        made_up.latency_of(time="1"),
        made_up.latency_of(time="2"),
        made_up.latency_of(time="3", quick=True),
        made_up.latency_of(time="4", quick=True, machine=other),
        made_up.latency_of(time="5", facts={"weights_fp32_nbytes": 2**33}),
    ]
    assert [record.header.time for record in chosen(records)] == ["5", "4", "2"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (made_up.peers_of({}, quick=True), "quick run"),
        (made_up.peers_of({}, commit="abc-dirty"), "uncommitted"),
        (
            made_up.peers_of({}, machine=Machine(busy=True, others_share=0.4)),
            "busy with other work (40% of its processors",
        ),
        (
            made_up.not_measured("peers", Status.REFUSED, "wrong picture"),
            "refused: wrong picture",
        ),
    ],
)
def test_what_weakens_a_figure_stands_above_it(record: Record, words: str, tmp_path: Path) -> None:
    append(record, tmp_path)
    written_report(ReportOptions(results=tmp_path, out=tmp_path))
    assert f'<p class="mark">{words}' in (tmp_path / "index.html").read_text().replace(
        "measured on a working tree with ", ""
    ).replace("the machine was ", "")


def test_latency_prints_the_table_of_nvidias_demo() -> None:
    record = made_up.latency()
    modules = [(row["Module"], row["Latency (ms)"]) for row in pipeline_rows(record.measured())]
    assert modules == [
        ("CLIP (text, photos, fusion MLP)", "1.00"),
        ("UNet x 14", "17.50"),
        ("- scene", "5.00"),
        ("- fusion", "7.00"),
        ("- subject", "6.00"),
        ("VAE", "2.00"),
        ("Pipeline", "21.00"),
    ]
    text = latency_text(record)
    assert "tensorrt: skipped, no NVIDIA GPU" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt install chromium")
@pytest.mark.parametrize("width_px", [1400, 390])
def test_a_browser_shows_all_of_the_page_within_the_window(width_px: int, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width_px, "height": 900})
        page.goto((folder / "index.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        # No cell reaches beyond the window: nothing is cut off, and nothing needs scrolling.
        assert (
            page.evaluate(
                "[...document.querySelectorAll('td, dd, img')].filter(each => each.offsetParent && "
                "each.getBoundingClientRect().right > window.innerWidth).length"
            )
            == 0
        )
        shown = "[...document.images].filter(each => each.complete && each.naturalWidth > 300)"
        assert page.evaluate(f"{shown}.length") == len(made_up.ALL) + 1
        # Beside each cell a narrow window shows its column's name.
        told = "getComputedStyle(document.querySelector('td'), '::before').content"
        assert ("drawn by" in page.evaluate(told)) == (width_px == 390)
        page.click("nav a >> nth=-1")
        assert page.evaluate("document.querySelector(location.hash).innerText") == "not measured"
        inked = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L")) < 128
        assert inked.mean() > 0.002
        browser.close()


def test_every_link_leads_to_a_heading_that_names_model_size_steps_and_machine(
    folder: Path,
) -> None:
    text = (folder / "index.html").read_text()
    links = re.findall(r'href="#([^"]+)"', text)
    assert set(links) == set(re.findall(r'<h2 id="([^"]+)"', text))
    assert heading(made_up.latency_of(machine=Machine(cpu="A CPU", usable_cpus=2))) == (
        "latency: a checkpoint, 128 px, 50 steps; A CPU, 2 cores"
    )
    assert text.index('id="quality-against-cost"') < text.index("<img") < text.index('id="cost"')


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("p50_ms", 64_521.0, "64.5 s"),
        ("p50_ms", 0.0123, "12.3 µs"),
        ("flop", 12_918_995_200, "12.9 GFLOP"),
        ("peak_rss_nbytes", 182_968_320, "183 MB"),
        ("share_of_roof", 0.1234, "12.3 %"),
        ("share_of_matrix_peak", 10.45, "none: above the peak as measured"),
        ("pictures_per_s", 2.2335, "2.23 /s"),
        ("identity", 0.8612, "0.861"),
        ("relative_l2", 1.373e-5, "1.37e-05"),
        ("rows", 1234567, "1,234,567"),
        ("knee", False, "no"),
        ("gpu", None, ""),
    ],
)
def test_figures_have_three_digits_and_a_unit(column: str, value: object, words: str) -> None:
    assert shown(column, value) == words


def test_a_percentile_needs_its_samples() -> None:
    row = {"count": 1, "p50_ms": 5.0, "p90_ms": 5.0, "p99_ms": 5.0, "min_ms": 5.0, "spread": 0.0}
    assert {name for name, value in sound(row).items() if value is not None} == {"count", "p50_ms"}
    assert sound(row | {"count": 10})["p90_ms"] == 5.0
    assert sound(row | {"count": 99})["p99_ms"] is None
    assert sound(row | {"count": 100})["p99_ms"] == 5.0
    four = {"pictures": 8, "images": 2, "request_p50_ms": 1.0, "request_p99_ms": 1.0}
    assert sound(four)["request_p99_ms"] is None and sound(four)["request_p50_ms"] == 1.0


def test_what_was_not_measured_costs_nothing_that_is_told() -> None:
    gpu = Machine(gpu="GPU", gpu_facts={"power.limit": "350.00 W"})
    whole = made_up.latency()
    rows = cost_rows([whole], Tariff())
    ours = [row for row in rows if row["of"] != "not measured"]
    assert ours and all(row["cost of 1000"] == "no price given" for row in ours)
    assert all(row["pictures per kWh"] == "power not known" for row in ours)
    missing = {row["drawn by"]: set(row.values()) for row in rows if row not in ours}
    assert missing["tensorrt"] == {"tensorrt", "not measured"}
    # 21 ms a picture at 360 an hour: 21 s for 1000.
    (paid, *_) = cost_rows([whole], Tariff(per_hour=360.0, watts=100.0))
    assert (paid["1000 pictures"], paid["cost of 1000"]) == ("0.350 min", "2.10")
    assert paid["pictures per kWh"] == "1.71e+06"
    (limited, *_) = cost_rows([replace(whole, header=replace(whole.header, machine=gpu))], Tariff())
    assert limited["pictures per kWh"] == "490,000"


def test_a_curve_that_ends_rising_has_no_knee() -> None:
    rising = made_up.throughput()
    rows = [
        replace(row, knee=row.images == 4) for row in rising.rows if isinstance(row, ThroughputRow)
    ]
    assert replace(rising, rows=tuple(rows)).knees() == set()
    assert rising.knees() == {(2, 1)}


def test_quality_stands_over_evaluations_where_both_were_measured_else_over_steps() -> None:
    steps = [made_up.quality_row(name, 0.8, 0.9) for name in ("full method", "10 steps", "PNDM")]
    quality = made_up.quality_of(steps, {})
    assert cost_plot([quality]) is not None
    assert cost_plot([made_up.quality_of(steps[:1], {})]) is None
    assert cost_plot([made_up.latency()]) is None


class _Balanced(HTMLParser):
    """Tags that are open."""

    _EMPTY = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self._EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_made_up_records_are_never_among_the_results() -> None:
    paths = list(RESULTS.glob("*.jsonl"))
    assert paths
    for path in paths:
        for line in path.read_text().splitlines():
            assert json.loads(line)["commit"] != made_up.MARK
