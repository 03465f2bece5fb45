"""The page in a real browser: people, a picture as it comes, cancelling, deleting a face."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.pacing_engine import PacingEngine
from tests.paths import ROOT
from tests.server.serving import Served, served, until

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

PHOTOS = ROOT / "examples" / "references"


@pytest.fixture
def engine() -> PacingEngine:
    return PacingEngine()


@pytest.fixture
def server(engine: PacingEngine) -> Iterator[Served]:
    with served(engine) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, server: Served) -> Iterator[Any]:
    """The page with two people; asked for nothing elsewhere and without an error when it ends."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1000, "height": 800})
    opened = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(server.url)
    opened.check("#consent")
    opened.set_input_files("#photos", [PHOTOS / "him.png", PHOTOS / "her.png"])
    opened.wait_for_selector("#people li:nth-child(2)")
    yield opened
    context.close()
    elsewhere = [url for url in asked if not url.startswith((server.url, "blob:", "data:"))]
    assert (elsewhere, wrong) == ([], [])


def test_a_picture_comes_step_by_step_and_can_be_downloaded(
    page: Any, engine: PacingEngine, tmp_path: Path
) -> None:
    engine.step_s = 0.05
    page.fill("#prompt", "a man ")
    page.get_by_role("button", name="Use him in the prompt").click()
    assert page.input_value("#prompt") == "a man @him "
    assert page.locator("#reads .chip").all_text_contents() == ["him"]
    page.fill("#seed", "7")
    page.select_option("#preset", "fast")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("#progress i.scene:nth-child(3)")
    assert page.locator("#progress").get_attribute("aria-valuetext").startswith("scene, step ")
    assert page.locator("#history li").count() == 0
    page.wait_for_selector("#history li")
    assert engine.drawn[0].prompt == "a man <|image|> "
    assert (engine.drawn[0].seed, engine.drawn[0].num_inference_steps) == (7, 10)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "picture.png")
    assert b"trainedAlgorithmicMedia" in (tmp_path / "picture.png").read_bytes()


def test_cancel_stops_the_engine(page: Any, engine: PacingEngine) -> None:
    engine.step_s = 0.1
    page.fill("#prompt", "a man @him")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("#progress i.scene:nth-child(2)")
    page.get_by_role("button", name="Cancel").click()
    playwright.expect(page.locator("#status")).to_have_text("Cancelled.")
    assert engine.idle.wait(5)
    assert engine.steps < 50


def test_deleting_a_face_takes_the_person_and_their_pictures(page: Any, server: Served) -> None:
    page.fill("#prompt", "a man @him")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("#history li")
    page.get_by_role("button", name="Delete the face of him from the server").click()
    playwright.expect(page.locator("#people li")).to_have_count(1)
    assert page.locator("#history li").count() == 0
    assert page.locator("#shown canvas").count() == 0
    assert len(server.client.get("/v1/identities").json()["data"]) == 1
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("#problem:not([hidden])")
    assert "There is no person @him" in page.locator("#problem").text_content()


def test_the_keyboard_alone_draws_a_picture(page: Any, engine: PacingEngine) -> None:
    page.locator("#prompt").focus()
    page.keyboard.type("a woman @her")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "draw"
    page.keyboard.press("Enter")
    page.wait_for_selector("#history li")
    assert len(engine.drawn) == 1


def test_presets_are_compared_from_one_seed(page: Any, engine: PacingEngine) -> None:
    page.fill("#prompt", "a man @him and a woman @her")
    page.get_by_role("button", name="Compare presets").click()
    page.wait_for_selector("#history li:nth-child(3)")
    assert page.locator("#shown figure").count() == 3
    assert len({each.seed for each in engine.drawn}) == 1
    assert len({each.num_inference_steps for each in engine.drawn}) == 3
    assert len(engine.drawn[0].references) == 2


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser: Any, server: Served) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = context.new_page()
    page.goto(server.url)
    page.check("#consent")
    page.set_input_files("#photos", [PHOTOS / "him.png"])
    page.wait_for_selector("#people li")
    page.fill("#prompt", "a man @him")
    page.tap("#draw")
    page.wait_for_selector("#history li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    heights = page.eval_on_selector_all("button", "all => all.map(each => each.offsetHeight)")
    assert min(height for height in heights if height) >= 35
    context.close()


def test_a_server_with_keys_asks_for_one(browser: Any, tmp_path: Path) -> None:
    from tests.server.test_identities import by_name

    engine = PacingEngine()
    with served(engine, authenticate=by_name) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.check("#consent")
        page.set_input_files("#photos", [PHOTOS / "him.png"])
        page.wait_for_selector("#key-form:not([hidden])")
        assert "key" in page.locator("#problem").text_content()
        page.close()
    until(engine.idle.is_set)
