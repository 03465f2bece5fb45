"""Every name we use exists in the real bindings of both versions, and the double has no other."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.bindings import VERSIONS, Bindings, real_bindings
from tests.contract.wanted import Want, importing, missing, unseen_answers, wanted
from tests.paths import ROOT
from tests.vendor import tensorrt as double

_CHECK = """
import tensorrt
from engines.tensorrt.library import TensorRt


def fits() -> TensorRt:
    return tensorrt


def does_not_fit() -> tensorrt.Builder:
    return tensorrt


REMOVED_IN_11 = tensorrt.BuilderFlag.FP16
"""


@pytest.fixture(scope="session", params=VERSIONS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    """A major version's bindings, kept from run to run where pytest keeps anything."""
    kept = request.config.cache
    folder = (
        tmp_path_factory.mktemp("bindings") if kept is None else kept.mkdir("tensorrt_bindings")
    )
    return real_bindings(request.param, folder)


def test_every_name_and_argument_we_use_exists(bindings: Bindings) -> None:
    wants = wanted()
    assert Want("BuilderFlag", "TF32") in wants
    assert Want("IExecutionContext", "execute_async_v3", ("stream_handle",), is_bool=True) in wants
    assert Want("OnnxParser", "__init__", ("network", "logger")) in wants
    assert missing(wants, bindings.surface) == []


def test_a_removed_name_would_be_noticed(bindings: Bindings) -> None:
    """BuilderFlag.FP16 left with TensorRT 11, as did the first device memory query."""
    removed = {Want("BuilderFlag", "FP16"), Want("ICudaEngine", "device_memory_size")}
    gone = ["BuilderFlag.FP16 is gone", "ICudaEngine.device_memory_size is gone"]
    assert missing(removed, bindings.surface) == (gone if bindings.version >= "11" else [])
    assert missing({Want("IAlgorithm9")}, bindings.surface) == ["IAlgorithm9 is gone"]
    for want in (
        Want("Builder", "create_network", ("flag",)),
        Want("IBuilderConfig", "set_flag", ("flag",), is_bool=True),
    ):
        assert len(missing({want}, bindings.surface)) == 1


def test_the_double_has_no_name_that_tensorrt_lacks(bindings: Bindings) -> None:
    wants = set()
    for name in double.__all__:
        value = getattr(double, name)
        if inspect.isclass(value):
            members = {m for m in vars(value) if not m.startswith("_")} | _assigned(value)
            wants |= {Want(name, member) for member in members}
    assert len(wants) > 50
    assert missing(wants, bindings.surface) == []


def _assigned(owner: type) -> set[str]:
    """Public attributes that a class gives itself in its methods."""
    tree = ast.parse(Path(inspect.getfile(owner)).read_text())
    (body,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner.__name__)
    stored = (
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "self"
    )
    return {name for name in stored if not name.startswith("_")}


def test_tensorrt_is_imported_in_one_place() -> None:
    assert importing() == {"engines/tensorrt/library.py"}


def test_every_bool_that_tensorrt_answers_with_is_looked_at() -> None:
    names = {want.member for want in wanted() if want.is_bool}
    assert {"parse_from_file", "set_timing_cache", "execute_async_v3"} <= names
    assert unseen_answers() == []


def test_the_real_module_has_the_type_that_we_give_it(bindings: Bindings, tmp_path: Path) -> None:
    """mypy against stubs that stubgen reads off the bindings."""
    _stubs(bindings, tmp_path)
    told = _mypy(tmp_path)
    lines = _CHECK.splitlines()
    expected = {lines.index("def does_not_fit() -> tensorrt.Builder:") + 2: "return-value"}
    if bindings.version >= "11":
        expected[lines.index("REMOVED_IN_11 = tensorrt.BuilderFlag.FP16") + 1] = "attr-defined"
    assert told == expected


def _stubs(bindings: Bindings, folder: Path) -> None:
    # mypy's compiled modules do not run with -m.
    stubgen = [sys.executable, "-c", "from mypy.stubgen import main; main()", "-q"]
    stubgen += ["--inspect-mode", "-o", str(folder), "-m", "tensorrt_bindings.tensorrt"]
    subprocess.run(stubgen, env=bindings.environment, check=True)
    path = folder / "tensorrt_bindings" / "tensorrt.pyi"
    lines = path.read_text().splitlines()
    # Constants of the module that hide the built-in types for all that follows.
    lines = ["" if line.startswith(("bool: ", "float: ", "int: ")) else line for line in lines]
    while (broken := _broken_line(lines)) is not None:
        lines[broken] = ""
    path.write_text("\n".join(["# mypy: ignore-errors", *lines]))
    (folder / "tensorrt_bindings" / "__init__.pyi").write_text("")
    alias = "from tensorrt_bindings.tensorrt import *\n\n__version__: str\n"
    (folder / "tensorrt.pyi").write_text(alias)


def _broken_line(lines: list[str]) -> int | None:
    """A signature that stubgen wrote against Python's grammar."""
    try:
        ast.parse("\n".join(lines))
    except SyntaxError as error:
        assert error.lineno is not None
        return error.lineno - 1
    return None


def _mypy(folder: Path) -> dict[int, str]:
    """What mypy finds wrong in the program, by line."""
    (folder / "check.py").write_text(_CHECK)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--config-file=", f"--cache-dir={folder / 'cache'}", "check.py"]
    checked = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={"MYPYPATH": f"{folder}:{ROOT}", "PATH": ""},
    )  # fmt: skip
    assert checked.returncode == 1, checked.stdout + checked.stderr
    found = re.findall(r"^(.+?):(\d+): error: .*\[([\w-]+)\]$", checked.stdout, re.MULTILINE)
    assert {file for file, _, _ in found} == {"check.py"}, checked.stdout
    return {int(line): kind for _, line, kind in found}
