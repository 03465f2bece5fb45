"""Which backend is opened, and what is loaded for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engines import providers
from engines.engine import Provider
from tests.paths import ROOT

_OF_A_GPU = (
    "engines.cuda.launcher", "engines.onnxruntime.cuda", "engines.plans", "engines.tensorrt",
    "runtime.gpu",
)  # fmt: skip
_DRAW = """
import sys
from runtime import FaceDiffuser, Request
with FaceDiffuser.open(sys.argv[1], provider=sys.argv[2]) as face_diffuser:
    face_diffuser.generate(
        Request(
            prompt="a man <|image|>", references=[sys.argv[3]], num_inference_steps=3, seed=1,
            height=64, width=64,
        )
    )
print(*sorted(sys.modules))
"""


def test_every_provider_has_its_row() -> None:
    assert list(providers.PROVIDERS) == list(Provider)


@pytest.mark.parametrize("provider", ["onnxruntime-cpu", "openvino"])
def test_drawing_on_the_cpu_loads_nothing_of_a_gpus(provider: str, golden_bundle: Path) -> None:
    photo = str(ROOT / "examples/references/him.png")
    command = [sys.executable, "-c", _DRAW, str(golden_bundle), provider, photo]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    loaded = finished.stdout.split()
    assert "runtime.host.pool" in loaded
    assert [each for each in loaded if each.startswith(_OF_A_GPU)] == []
