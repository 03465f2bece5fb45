"""The real TensorRT bindings, imported over stub libraries: their whole surface as text."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

VERSIONS = {"11": "tensorrt_cu13_bindings==11.4.*", "10": "tensorrt_cu12_bindings==10.16.*"}

# What the bindings want of libnvinfer, libnvinfer_plugin and libnvonnxparser in order to import.
_FUNCTIONS = """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getBuilderPluginRegistry
getPluginRegistry getNvOnnxParserVersion initLibNvInferPlugins getInferLibVersion getLogger
"""
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

# Prints {class: {member: docstring}} of the module.
_PROBE = """
import inspect, json, tensorrt
surface = {
    name: {member: getattr(value, member).__doc__ or "" for member in dir(value)}
    for name, value in vars(tensorrt).items() if inspect.isclass(value)
}
print(json.dumps({"version": tensorrt.__version__, "surface": surface}))
"""

Surface = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Bindings:
    """One version: where it lies, its surface, and the environment it imports in."""

    folder: Path
    version: str
    surface: Surface
    environment: dict[str, str]


def surface_of(module: ModuleType) -> Surface:
    """The surface of a module that can be imported here."""
    return {
        name: {member: getattr(value, member).__doc__ or "" for member in dir(value)}
        for name, value in vars(module).items()
        if inspect.isclass(value)
    }


def real_bindings(major: str, cache: Path) -> Bindings:
    """Fetch, unpack and import the bindings of a major version; skips where that is impossible."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to make the stub libraries with")
    folder = cache / VERSIONS[major].replace("=", "").replace("*", "x")
    with (cache / f"{folder.name}.lock").open("w") as lock:
        # Several processes of one test run may be here.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").is_file():
            _prepare(folder, major, compiler)
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "PYTHONPATH": str(folder),
    }
    probed = subprocess.run(
        [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, check=False
    )
    assert probed.returncode == 0, probed.stderr
    found = json.loads(probed.stdout)
    return Bindings(folder, found["version"], found["surface"], environment)


def _prepare(folder: Path, major: str, compiler: str) -> None:
    """Fetch and unpack the bindings, and make the stub libraries that they load."""
    with zipfile.ZipFile(_wheel(VERSIONS[major], folder.parent)) as archive:
        archive.extractall(folder)
    # The package `tensorrt` hands on what the bindings have.
    package = folder / "tensorrt" / "__init__.py"
    package.parent.mkdir(exist_ok=True)
    package.write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    source = folder / "stub.c"
    functions = [f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS.split()]
    source.write_text("".join(functions))
    (folder / "lib").mkdir(exist_ok=True)
    for library in _LIBRARIES:
        target = folder / "lib" / f"lib{library}.so.{major}"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", target, source], check=True)
    (folder / "ready").touch()


def _wheel(requirement: str, cache: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    fetched = subprocess.run(
        [*command, "--dest", str(cache), requirement], capture_output=True, text=True, check=False
    )
    if fetched.returncode:
        last = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"{requirement} cannot be fetched for this Python: {last}")
    return next(cache.glob(requirement.split("==")[0] + "*.whl"))
