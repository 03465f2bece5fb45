"""The report from records that are made up, and marked so; in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.measures.report import ReportOptions, chosen, written_report
from benchmarks.pictures.text import latency_text, pipeline_rows
from benchmarks.report.plots import plot_of
from benchmarks.schema.record import Machine, Record, Status
from benchmarks.schema.results import RESULTS, append
from tests.benchmarks import made_up

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
_COUNT = """
<script>
const pictures = [...document.images];
document.body.dataset.shown = pictures.filter(p => p.complete && p.naturalWidth > 300).length;
document.body.dataset.overflow = document.documentElement.scrollWidth - window.innerWidth;
</script>
"""


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
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in text
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []


def test_the_page_says_where_figures_come_from_and_what_is_missing(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    assert made_up.MARK in text
    assert "python -m benchmarks latency" in text
    assert "skipped: there is no NVIDIA GPU &lt;here&gt;" in text
    assert "No record of: serving, kernels, cubins, build, curve, device." in text


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
def test_a_browser_shows_every_plot_within_the_window(folder: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    page = tmp_path / "page.html"
    text = (folder / "index.html").read_text()
    page.write_text(text.replace("</body>", f"{_COUNT}</body>"))
    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,1400"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    for more in ([f"--screenshot={shot}"], ["--dump-dom"]):
        finished = subprocess.run(
            [BROWSER, *flags, *more, page.as_uri()], capture_output=True, text=True, timeout=120
        )
        assert finished.returncode == 0, finished.stderr
    body = re.search(r'<body data-shown="(\d+)" data-overflow="(-?\d+)"', finished.stdout)
    assert body is not None
    assert int(body[1]) == len(made_up.ALL)
    assert int(body[2]) <= 0
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert (pixels < 128).any(axis=2).mean() > 0.002


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
