"""What pages and examples write passes mypy's and pyright's strictest readings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import get_args

import pytest

from runtime import Fusion, GuidanceRule, OutputType, Preset, Request, Scheduler
from runtime.inputs import words
from tests.paths import ROOT

# As documented, and what a checker must refuse.
CALLS = """
from face_diffuser import FaceDiffuser, Request, Result

def draw(face_diffuser: FaceDiffuser) -> None:
    request = Request(
        prompt="a man <|image|>", references=["him.jpg"], preset="fast", scheduler="pndm",
        guidance_rule="released", fusion="addition", output_type="np", num_inference_steps=None,
    )
    result: Result = face_diffuser.generate(request)
    result.images[0].save("park.png")
    result.pictures[0].save("park.png")
    shape: tuple[int, ...] = result.array.shape
    results: list[Result] = face_diffuser.generate(
        Request.each(["a man <|image|> in a park", "a man <|image|> at sea"], ["him.jpg"], seed=7)
    )
    steps: int = result.request.num_inference_steps + len(results) + len(shape)
    print(steps, result.request.scheduler.value)
"""
# What a block of a page may take for known.
BEFORE = """
from typing import Any
import openai
from face_diffuser import FaceDiffuser, Request

async def block(
    face_diffuser: FaceDiffuser, request: Request, scene_unet: Any, subject_unet: Any, latents: Any,
    timestep: Any, scene_prompts: Any, subject_prompts: Any, scheduler: Any,
) -> None:
"""
REFUSED = """
from face_diffuser import Request

Request(prompt="a man", references=[], scheduler="pmdm")
"""


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (words.PresetWord, Preset),
        (words.SchedulerWord, Scheduler),
        (words.GuidanceRuleWord, GuidanceRule),
        (words.FusionWord, Fusion),
        (words.OutputTypeWord, OutputType),
    ],
)
def test_the_words_for_type_checkers_are_the_enums(word: object, kind: type[StrEnum]) -> None:
    assert get_args(word) == tuple(each.value for each in kind)


def test_the_signature_for_type_checkers_names_every_field() -> None:
    text = (ROOT / "runtime" / "request.py").read_text()
    (signature,) = re.findall(r"def __init__\((.*?)\) -> None: \.\.\.", text, re.DOTALL)
    named = re.findall(r"^ +(\w+): .*?(= \.\.\.)?,$", signature, re.MULTILINE)
    required = {"prompt", "references"}
    assert [name for name, _ in named] == list(Request.__dataclass_fields__)
    assert {name for name, default in named if not default} == required


def _sources(folder: Path) -> list[Path]:
    """The calls above, every Python block of a page, and the examples."""
    (folder / "calls.py").write_text(CALLS)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    for page in pages:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks):
            name = f"{page.stem}_{number}.py".replace("-", "_")
            (folder / name).write_text(BEFORE + textwrap.indent(block, "    "))
    for example in (ROOT / "examples").glob("*.py"):
        if example.stem not in ("__init__", "fuse_two_models"):
            shutil.copy(example, folder / f"example_{example.name}")
    return sorted(folder.glob("*.py"))


@pytest.mark.slow
def test_mypy_accepts_them_and_refuses_a_misspelt_word(tmp_path: Path) -> None:
    def mypy(*files: Path) -> str:
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml"]
        found = subprocess.run(
            [*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return found.stdout

    assert "Success" in (told := mypy(*_sources(tmp_path))), told
    (tmp_path / "refused.py").write_text(REFUSED)
    assert 'Argument "scheduler"' in mypy(tmp_path / "refused.py")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")
def test_pyright_accepts_them_and_refuses_a_misspelt_word(tmp_path: Path) -> None:
    refused = tmp_path / "refused.py"
    files = _sources(tmp_path)
    refused.write_text(REFUSED)
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["pyright", "--pythonpath", sys.executable, "--outputjson", "--project"]
    answer = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    told = json.loads(answer.stdout)
    errors = [each for each in told["generalDiagnostics"] if each["severity"] == "error"]
    assert told["summary"]["filesAnalyzed"] > len(files)
    assert [Path(each["file"]).name for each in errors] == ["refused.py"], errors
