"""Every command that a page tells a reader to type is one that its program understands."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, measure_named, parser_of
from face_diffuser.__main__ import COMMANDS
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "mini" / "README.md"]
PAGES += [ROOT / "CONTRIBUTING.md"]
# What has no parser of its own.
_PLAIN = ("pytest", "tests.", "pip", "venv", "json.tool")


def _commands(page: Path) -> list[list[str]]:
    """Words of each line, indented or within a fence, that starts a Python module."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?: {4,}|\$ )?(?:[A-Z_]+=\S+ )*python -m (.*)$", text, re.MULTILINE)
    # A line that leaves something out, or names nothing, is an outline.
    return [
        shlex.split(line, comments=True)
        for line in lines
        if not re.search(r"\.\.\.|\bNAME\b|\[--", line)
    ]


def _parsed(module: str, words: list[str]) -> None:
    if module == "benchmarks":
        name = next(word for word in words if word in BENCHMARKS)
        parser_of(measure_named(name).options).parse_args(words)
        return
    runs = {
        command.module.removesuffix(".__main__"): command.module for command in COMMANDS.values()
    }
    place = {"export.bisect": "export.bisect.__main__"} | runs
    import_module(place.get(module, module)).parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_its_commands_can_be_typed(page: Path) -> None:
    for module, *words in _commands(page):
        if not module.startswith(_PLAIN):
            try:
                _parsed(module.removeprefix("face_diffuser."), words)
            except SystemExit as error:
                pytest.fail(f"python -m {module} {shlex.join(words)}: exit {error.code}")


def test_there_are_commands_to_try() -> None:
    assert sum(len(_commands(page)) for page in PAGES) > 20
