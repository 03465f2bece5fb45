"""The driver's import site and its statuses."""

import sys
from pathlib import Path

import pytest

from engines.cuda import driver as cuda
from engines.errors import ProviderUnavailableError
from tests.doubles.cuda_driver import cuda_driver
from tests.kernels.recorder import written_library


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
