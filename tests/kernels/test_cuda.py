"""The driver's import site and its statuses."""

import importlib
import inspect
import sys

import pytest

from engines import cuda
from engines.errors import ProviderUnavailableError


def test_checked_returns_what_the_driver_returned() -> None:
    assert cuda.checked((0,)) is None
    assert cuda.checked((0, 5)) == 5
    assert cuda.checked((0, 5, 6)) == (5, 6)


def test_checked_raises_with_the_status() -> None:
    with pytest.raises(cuda.CudaError, match="700") as raised:
        cuda.checked((700, None))
    assert raised.value.status == 700


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


def test_the_functions_are_the_bindings_own() -> None:
    try:
        bindings = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        pytest.skip("cuda-bindings is not installed")
    stated = {n: f for n, f in vars(cuda.Driver).items() if n.startswith("cu")}
    assert stated
    for name, function in stated.items():
        documented = inspect.getdoc(getattr(bindings, name)) or ""
        signature = documented.splitlines()[0]
        names = list(inspect.signature(function).parameters)[1:]
        assert all(parameter in signature for parameter in names), signature
