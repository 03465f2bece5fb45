"""Every function, argument, enum member and status we use exists in the real cuda-bindings."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.cuda import driver as cuda
from engines.cuda import gpu, launcher
from tests.doubles.cuda_driver import CudaDriver
from tests.paths import ROOT

VERSIONS = ("13.5.*", "12.9.*")
PATHFINDER = "cuda-pathfinder"

# The driver's module imports without libcuda; only its calls fail.
_PROBE = """
import json, cuda.bindings.driver as driver
functions = {n: getattr(driver, n).__doc__ or "" for n in dir(driver) if n.startswith("cu")}
enums = {n: {member.name: int(member) for member in value} for n, value in vars(driver).items()
         if n.startswith("CU") and hasattr(value, "__members__")}
print(json.dumps({"functions": functions, "enums": enums}))
"""


@dataclass(frozen=True)
class Bindings:
    """signatures: by function, the first line of its documentation. enums: members and values."""

    folder: Path
    signatures: dict[str, str]
    enums: dict[str, dict[str, int]]


@pytest.fixture(scope="session", params=VERSIONS)
def bindings(request: pytest.FixtureRequest) -> Bindings:
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir("cuda_bindings") / request.param.replace(".*", "")
    if not (folder / "cuda" / "bindings").is_dir():
        for requirement in (f"cuda-bindings=={request.param}", PATHFINDER):
            _unpack(requirement, folder)
    probed = subprocess.run(
        [sys.executable, "-c", _PROBE], env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert probed.returncode == 0, probed.stderr
    found = json.loads(probed.stdout)
    signatures = {n: (doc.strip().splitlines() or [""])[0] for n, doc in found["functions"].items()}
    return Bindings(folder, signatures, found["enums"])


def _unpack(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    fetched = subprocess.run(
        [*command, "--dest", str(folder / "wheels"), requirement],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        last = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"{requirement} cannot be fetched for this Python: {last}")
    name = requirement.split("==")[0].replace("-", "_")
    with zipfile.ZipFile(next((folder / "wheels").glob(f"{name}*.whl"))) as archive:
        archive.extractall(folder)


def _used_members() -> set[str]:
    """Enum members by their name, wherever we read one."""
    sources = [*(ROOT / "engines").rglob("*.py"), *(ROOT / "runtime").rglob("*.py")]
    return {
        member
        for source in sources
        for member in re.findall(r"\.(CU_[A-Z0-9_]+)", source.read_text())
    }


def _functions(stated: type) -> dict[str, list[str]]:
    """A class's driver functions with the names of their arguments."""
    functions = {
        name: function
        for name, function in inspect.getmembers(stated, inspect.isfunction)
        if name.startswith("cu")
    }
    return {n: list(inspect.signature(f).parameters)[1:] for n, f in functions.items()}


def _required(signature: str) -> list[str]:
    """Names of the parameters without a default in `cuF(type name, name: type, name=default)`."""
    inside = (
        re.sub(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]", "", signature).split("(", 1)[1].rstrip(")")
    )
    parameters = [each.split(":")[0].strip() for each in inside.split(",") if each.strip()]
    return [each.split()[-1].lstrip("*") for each in parameters if "=" not in each]


def test_every_function_takes_the_arguments_we_give(bindings: Bindings) -> None:
    stated = _functions(cuda.Driver)
    assert {"cuLaunchKernel", "cuStreamBeginCapture", "cuGraphLaunch"} <= stated.keys()
    for name, arguments in stated.items():
        assert name in bindings.signatures, f"{name} is gone"
        assert _required(bindings.signatures[name]) == arguments, name


def test_a_removed_function_or_argument_would_be_noticed(bindings: Bindings) -> None:
    assert "cuGraphInstantiateWithFlags" not in bindings.signatures
    assert _required("cuF(a: tuple[int, int], unsigned int b, size_t c=0)") == ["a", "b"]


def test_every_enum_member_we_use_is_there(bindings: Bindings) -> None:
    enums = [name for name in vars(cuda.Driver) if name.startswith("CU")]
    known = {member for enum in enums for member in bindings.enums[enum]}
    used = _used_members()
    assert "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL" in used
    assert used <= known


def test_statuses_have_the_numbers_we_know(bindings: Bindings) -> None:
    statuses = bindings.enums["CUresult"]
    assert statuses["CUDA_ERROR_OUT_OF_MEMORY"] == cuda._OUT_OF_MEMORY
    assert statuses["CUDA_ERROR_NO_DEVICE"] == cuda._NO_DEVICE
    assert statuses["CUDA_ERROR_NOT_READY"] == gpu._NOT_READY
    assert statuses["CUDA_ERROR_INVALID_VALUE"] == launcher._INVALID_VALUE


def test_the_real_bindings_take_our_calls(bindings: Bindings, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to make a stub of libcuda with")
    source, library = Path(__file__).parent / "stub_libcuda.c", tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(bindings.folder), str(ROOT)]),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.contract.cuda_calls"], env=environment, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


def test_the_double_has_the_functions_that_are_stated_and_no_other() -> None:
    stated, doubled = _functions(cuda.Driver), _functions(CudaDriver)
    assert doubled.keys() == stated.keys()
    for name in stated.keys() - _functions(cuda.KernelDriver).keys():
        assert doubled[name] == stated[name], name
