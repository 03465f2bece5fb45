"""The documents say what is there: links, paths, folders."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

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
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = [path for path in _PATH.findall(text) if "NAME" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


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
