"""The documents say what is there: links, paths, folders."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import face_diffuser
from tests.paths import ROOT

PRODUCT = (
    "benchmarks",
    "engines",
    "examples",
    "export",
    "face_diffuser",
    "kernels",
    "mini",
    "runtime",
    "server",
)
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("mini/*.md")]
    if path.is_file()
)
# A folder named with its files' common shape, such as docs/quality/*.png, is no path.
_PATH = re.compile(rf"`((?:{'|'.join(PRODUCT)}|docs|tests)/[\w/]+(?:\.\w+)?)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r'(?:\]\(|src="|href=")([^)"]+)', text)
    links = [link for link in found if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []
    ends = [link.partition("#") for link in links if "#" in link]
    leading = [(page.parent / path if path else page, anchor) for path, _, anchor in ends]
    assert [anchor for path, anchor in leading if anchor not in _anchors(path)] == []
    paths = [path for path in _PATH.findall(text) if "NAME" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def _anchors(page: Path) -> set[str]:
    """Where links into a page may lead: its headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_the_site_lists_every_page() -> None:
    listed = re.findall(r"^ +- ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def _public_members() -> Iterator[tuple[str, object]]:
    """Every public name, and what users call or read on it."""
    for name in face_diffuser.__all__:
        each = getattr(face_diffuser, name)
        yield name, each
        for base in getattr(each, "__mro__", ())[:1]:
            for member, value in vars(base).items():
                called = getattr(value, "fget", None) or getattr(value, "__func__", value)
                called = getattr(called, "func", called)  # of a cached property
                if not member.startswith("_") and inspect.isfunction(called):
                    yield f"{name}.{member}", called


def test_every_public_name_has_a_docstring_and_stands_in_the_reference() -> None:
    members = dict(_public_members())
    assert [name for name, each in members.items() if not inspect.getdoc(each)] == []
    page = (ROOT / "docs" / "reference.md").read_text()
    told = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    places = {
        name: f"{each.__module__}.{name}"
        for name, each in members.items()
        if "." not in name and hasattr(each, "__module__")
    }
    assert [
        name
        for name, place in places.items()
        if place not in told and place.rpartition(".")[0] not in told
    ] == []


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: extra docs")
def test_the_site_builds_without_a_warning_and_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | proxies, check=False
    )
    assert built.returncode == 0, built.stderr
    for page in ("index.html", "tutorial/index.html", "troubleshooting/index.html"):
        text = (tmp_path / page).read_text()
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', text)
        assert fetched == []
    reference = (tmp_path / "reference" / "index.html").read_text()
    assert "generate_async" in reference and "BundleSchemaError" in reference


def test_the_architecture_page_names_every_folder_with_its_own_sentence() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = dict(re.findall(r"^\| `([\w/]+)` \| (.*) \|$", page, re.MULTILINE))
    found = {}
    for path in sorted(ROOT.glob("*/**/__init__.py")):
        folder = path.parent.relative_to(ROOT).as_posix()
        if folder.split("/")[0] in PRODUCT and not folder.startswith("mini/"):
            sentence = ast.get_docstring(ast.parse(path.read_text())) or ""
            found[folder] = sentence.splitlines()[0]
    assert listed == found


def test_no_folder_holds_more_than_14_modules() -> None:
    counts = Counter(path.parent for name in PRODUCT for path in (ROOT / name).rglob("*.py"))
    assert {folder: count for folder, count in counts.items() if count > 14} == {}


@pytest.mark.slow
def test_the_tutorials_programs_draw(
    golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "bundle").symlink_to(golden_bundle)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    # The one whole picture takes half a minute in 50 steps.
    programs = [block.replace("seed=3, ", "seed=3, num_inference_steps=8, ") for block in blocks]
    assert programs != blocks
    for program in programs:
        exec(compile(program, "tutorial.md", "exec"), {})
    for name in ("her-0.png", "her-1.png", "who-drew-what.png"):
        with Image.open(tmp_path / name) as picture:
            picture.verify()
