"""TensorRT's plans at draw time."""

from __future__ import annotations

import subprocess
import sys

from tests.paths import ROOT

_LOADED = """
import sys
import engines.tensorrt.provider
print(*sorted(name for name in sys.modules if name.startswith("engines.plans")))
"""


def test_drawing_from_plans_loads_no_builder_of_plans() -> None:
    command = [sys.executable, "-c", _LOADED]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []
