"""A process that draws has as many threads as were asked for, not that many for each engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import GOLDEN, ROOT

pytestmark = pytest.mark.slow  # hundreds of threads

# A machine of 64 processors: draws, then prints how many threads there were at most.
_DRAWN = """
import os, runpy, sys, threading
import engines.threads
engines.threads.processors = lambda: 64
import engines.onnxruntime.cpu
engines.onnxruntime.cpu.processors = lambda: 64
from runtime import FaceDiffuser
drawn, most = FaceDiffuser.generate, []
def counted(*arguments, **words):
    result = drawn(*arguments, **words)
    most.append(len(os.listdir("/proc/self/task")))
    return result
FaceDiffuser.generate = counted
try:
    runpy.run_module("runtime", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code == 0, end.code
print(most[0])
"""
_OWN = """
import sys
import onnxruntime
onnxruntime.set_global_thread_pool_sizes(2, 1)
from runtime import FaceDiffuser
with FaceDiffuser.open(sys.argv[1], provider="onnxruntime-cpu", threads=2) as face_diffuser:
    print(face_diffuser.provider)
"""

linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts as Linux tells")


def output(program: str, *words: str) -> list[str]:
    command = [sys.executable, "-c", program, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout.splitlines()


@linux
@pytest.mark.parametrize("provider", ["onnxruntime-cpu", "openvino"])
def test_64_threads_are_64_threads(provider: str, golden_bundle: Path, tmp_path: Path) -> None:
    told = output(
        _DRAWN, "a man <|image|>", "--reference", str(GOLDEN / "refs" / "man1.png"),
        "--bundle", str(golden_bundle), "--provider", provider, "--threads", "64",
        "--num-inference-steps", "1", "--height", "64", "--width", "64",
        "--out", str(tmp_path / "out.png"),
    )  # fmt: skip
    # Beside them the one that asks, and numpy's, which number as many as there are processors.
    assert int(told[-1]) <= 64 + 2 + (os.cpu_count() or 1)


def test_an_application_that_shares_one_pool_can_open_a_bundle(golden_bundle: Path) -> None:
    assert output(_OWN, str(golden_bundle))[-1] == "onnxruntime-cpu"
