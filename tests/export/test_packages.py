"""A machine without the extra `export`: the command says what to type, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from engines import commands
from export.packages import LORA_PACKAGES, PACKAGES
from tests.paths import ROOT

# Importing what is None raises ModuleNotFoundError.
_WITHOUT = """
import runpy, sys
for name in {packages!r}:
    sys.modules[name] = None
sys.argv[0] = "export.build"
runpy.run_module("export.build", run_name="__main__")
"""


def run_without(packages: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT.format(packages=packages), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("packages", [PACKAGES, ("onnxscript",)])
def test_a_build_without_its_packages_ends_with_what_to_type(packages: tuple[str, ...]) -> None:
    finished = run_without(packages, "--fp16", "--json")
    assert finished.returncode == 1
    fix = commands.installed("export")
    reason = f"a build needs {', '.join(packages)}, not installed here; install with"
    assert finished.stderr.splitlines() == [f"{reason}: {fix}"]
    said = {"error": "MissingPackagesError", "reason": reason, "fix": fix}
    assert json.loads(finished.stdout) == said


def test_help_and_wrong_words_need_none_of_the_packages() -> None:
    assert "--fp16" in run_without(PACKAGES, "--help").stdout
    assert run_without(PACKAGES, "--fp16", "--fp32").returncode == 2


def test_the_packages_are_those_of_the_extra_that_every_platform_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = map(Requirement, project["optional-dependencies"]["export"])
    names = {each.name.replace("-", "_") for each in needed if each.marker is None}
    assert names == {*PACKAGES, *LORA_PACKAGES}
