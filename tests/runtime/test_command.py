"""`python -m runtime`: the provider that is asked for, or the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import runtime.backends
from engines.errors import ProviderUnavailableError
from runtime.__main__ import main
from tests.runtime.gpu.double import REFERENCE


@pytest.fixture
def arguments(golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small picture on a machine without a GPU."""

    def no_driver(extra: str) -> Any:
        raise ProviderUnavailableError("no GPU; check", fix="nvidia-smi")

    monkeypatch.setattr(runtime.backends, "driver", no_driver)
    picture = tmp_path / "picture.png"
    return [
        "a man <|image|>", "--reference", str(REFERENCE), "--bundle", str(golden_bundle),
        "--out", str(picture), "--height", "64", "--width", "64", "--num-inference-steps", "2",
    ]  # fmt: skip


def test_the_best_provider_is_taken_and_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["provider"] == "onnxruntime-cpu"
    assert outcome["declined"]["tensorrt"] == "no GPU; check: nvidia-smi"
    assert Path(outcome["files"][0]).is_file()


@pytest.mark.parametrize("provider", ["tensorrt", "onnxruntime-cuda"])
def test_a_provider_that_cannot_run_here_is_an_error(
    provider: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--provider", provider]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "no GPU; check: nvidia-smi"


def test_json_tells_the_reason_and_what_to_type_apart(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--provider", "tensorrt", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "error": "ProviderUnavailableError", "reason": "no GPU; check", "fix": "nvidia-smi",
    }  # fmt: skip
    assert printed.err.splitlines()[-1] == "no GPU; check: nvidia-smi"


def test_low_memory_is_for_the_cpu(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--low-memory", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provider"] == "onnxruntime-cpu"
    assert main([*arguments, "--low-memory", "--provider", "tensorrt"]) == 1
    assert "low_memory is for onnxruntime-cpu" in capsys.readouterr().err


def test_an_unknown_provider_is_a_wrong_word(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--provider", "cuda"])
    assert exit_.value.code == 2
