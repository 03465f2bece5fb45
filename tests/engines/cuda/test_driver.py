"""The driver's import site and its statuses."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.cuda import driver as cuda
from engines.errors import ProviderUnavailableError
from tests.doubles.cuda_driver import cuda_driver
from tests.kernels.recorder import written_library
from tests.paths import ROOT


def test_checked_returns_what_the_driver_returned() -> None:
    assert cuda.checked((0,), "cuF") is None
    assert cuda.checked((0, 5), "cuF") == 5
    assert cuda.checked((0, 5, 6), "cuF") == (5, 6)


def test_an_error_names_the_call_the_object_and_the_status() -> None:
    with pytest.raises(cuda.CudaError, match=r"^cuF of the main stream: .* answered 2 \(2\)$"):
        cuda.checked((2, None), "cuF", "the main stream")
    with pytest.raises(cuda.CudaError, match=r"^cuF: .*700.*start it again") as raised:
        cuda.checked((700, None), "cuF")
    assert (raised.value.status, raised.value.is_lost) == (700, True)


def test_giving_back_to_a_gpu_that_is_lost_is_no_second_error() -> None:
    for status in (0, 700, 719):
        cuda.released((status,), "cuMemFree", "weights")
    with pytest.raises(cuda.CudaError, match="cuMemFree of weights"):
        cuda.released((1,), "cuMemFree", "weights")


def test_every_status_is_checked_under_the_name_of_its_own_call() -> None:
    """checked(driver.cuF(...), "cuF", ...), in one line or by way of `answer`."""
    seen = 0
    for source in (ROOT / "engines/cuda").glob("*.py"):
        made: list[str] = []
        tree = ast.parse(source.read_text())
        for node in sorted(_nodes(tree), key=lambda each: (each.lineno, each.col_offset)):
            name = _name(node)
            if name.startswith("cu"):
                made.append(name)
            elif name in ("checked", "released") and source.name != "driver.py":
                told = node.args[1]
                names = {told.value} if isinstance(told, ast.Constant) else {"call"}
                inside = [name for name in map(_name, _nodes(node.args[0])) if name[:2] == "cu"]
                expected = inside[0] if inside else made[-1]
                assert names in ({expected}, {"call"}), f"{source}, line {node.lineno}"
                seen += 1
    assert seen > 30


def _name(call: Any) -> str:
    return str(call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id)


def _nodes(tree: ast.AST) -> list[Any]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    ]


def test_one_status_alone_tells_of_memory() -> None:
    told = {status: cuda.CudaError("", status).is_out_of_memory for status in (1, 2, 3, 700)}
    assert told == {1: False, 2: True, 3: False, 700: False}


def test_missing_bindings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(ProviderUnavailableError, match="pip install"):
        cuda.driver()


def test_a_machine_without_a_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDevice:
        @staticmethod
        def cuInit(flags: int) -> tuple[int]:
            return (100,)

    monkeypatch.setattr(cuda, "import_module", lambda _: NoDevice)
    with pytest.raises(ProviderUnavailableError, match="nvidia-smi"):
        cuda.driver()


def test_an_old_driver_is_named_with_the_version_it_must_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written_library(tmp_path)
    old = cuda_driver(tmp_path, version=11080)
    monkeypatch.setattr(cuda, "import_module", lambda _: old)
    with pytest.raises(ProviderUnavailableError, match=r"CUDA 11\.8, .* CUDA 12\.0 or newer"):
        cuda.driver()
    old.version = 12000  # 525
    assert cuda.architecture_of() == 90
