"""`python -m runtime`: the provider that is asked for, or the reason."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import runtime.backends
from engines.bundle.files import write_atomic
from engines.errors import ProviderUnavailableError
from runtime import FaceDiffuser
from runtime import __main__ as command
from runtime.__main__ import main
from tests.runtime.gpu.drawing import REFERENCE


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


def test_low_memory_is_for_whatever_draws(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--low-memory", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provider"] == "onnxruntime-cpu"
    assert main([*arguments, "--low-memory", "--provider", "tensorrt"]) == 1
    assert "no GPU; check: nvidia-smi" in capsys.readouterr().err


def test_an_unknown_provider_is_a_wrong_word(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--provider", "cuda"])
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    "name", ["a.xyz", "noending", "folder.png", "file/a.png", "link.png", "pipe.png", "locked.png"]
)
def test_a_name_that_cannot_be_written_is_refused_before_anything_is_drawn(
    name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "file")
    (tmp_path / "locked.png").touch(0o400)
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr(FaceDiffuser, "open", lambda *_, **__: pytest.fail("it was opened"))
    assert main([*arguments, "--out", str(tmp_path / name)]) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--reference", "nowhere.jpg"], "nowhere.jpg cannot be read"),
        (["--reference", str(REFERENCE)], "1 <|image|> and there are 2 references"),
    ],
)
def test_photos_and_markers_are_checked_before_a_bundle_opens(
    words: list[str], reason: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(FaceDiffuser, "open", lambda *_, **__: pytest.fail("it was opened"))
    prompt = "a man <|image|> and <|image|>" if "nowhere.jpg" in words else arguments[0]
    assert main([prompt, *arguments[1:], *words]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"words"])
def test_latents_that_are_none_are_refused_in_a_sentence(
    content: bytes, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latents.npy").write_bytes(content)
    assert main([*arguments, "--latents", str(tmp_path / "latents.npy")]) == 1
    assert "is not a readable .npy array" in capsys.readouterr().err
    np.savez(tmp_path / "several.npz", one=np.zeros(1), two=np.zeros(1))
    assert main([*arguments, "--latents", str(tmp_path / "several.npz")]) == 1
    assert "holds several arrays" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_reader_that_has_gone_costs_no_picture(
    words: list[str], arguments: list[str], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        [sys.executable, "-m", "runtime", *arguments, *words], stdout=writing,
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "all was done, but standard output cannot be written (Broken pipe)"
    ]
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (64, 64)


def test_a_photo_is_not_overwritten_by_its_picture(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Path(shutil.copy(REFERENCE, tmp_path / "him.png"))
    words = [*arguments, "--reference", str(photo), "--out", str(photo)]
    assert main(words) == 1
    assert "is what is drawn from" in capsys.readouterr().err
    assert photo.read_bytes() == REFERENCE.read_bytes()


def test_what_was_drawn_is_kept_where_its_place_has_gone(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / "picture.png"

    def failing(path: Path, content: bytes) -> None:
        if path == gone:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(path, content)

    monkeypatch.setattr("runtime.__main__.write_atomic", failing)
    assert main(arguments) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    kept = Path(told.rpartition(" is kept in ")[2]) / "picture.png"
    with Image.open(kept) as picture:
        assert picture.size == (64, 64)
    shutil.rmtree(kept.parent)


def test_a_picture_tells_bundle_seed_and_settings_but_no_prompt(
    arguments: list[str], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.png"
    words = [*arguments, "--seed", "7", "--negative-prompt", "drizzle"]
    assert main(words) == 0
    assert main([*words, "--no-metadata", "--out", str(bare)]) == 0
    with Image.open(tmp_path / "picture.png") as picture, Image.open(bare) as plain:
        picture.load()
        plain.load()
    about = json.loads(picture.info["face-diffuser"])
    assert about["seed"] == 7
    assert len(about["bundle"]) == 64
    assert about["settings"]["num_inference_steps"] == 2
    assert "trainedAlgorithmicMedia" in picture.info["XML:com.adobe.xmp"]
    content = (tmp_path / "picture.png").read_bytes()
    assert b"a man" not in content
    assert b"drizzle" not in content
    assert not plain.info
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(plain))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_other_formats_carry_the_mark_too(
    suffix: str, arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--out", str(tmp_path / f"a{suffix}")]) == 0
    assert b"trainedAlgorithmicMedia" in (tmp_path / f"a{suffix}").read_bytes()


def test_words_that_the_model_does_not_read_are_told(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a man <|image|> in a park" + " with many trees" * 60 + " at night"
    assert main([prompt, *arguments[1:], "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["unread"]["prompt"].endswith("at night")
    assert "the model read prompt up to its last token" in printed.err


def test_a_terminal_of_ascii_gets_a_picture_with_another_name(
    arguments: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "bild_\u65e5\u672c.png"
    run = subprocess.run(
        [sys.executable, "-m", "runtime", *arguments, "--out", str(out)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0
    assert out.is_file()


def test_a_closed_stdout_is_found_before_json_is_drawn_for(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(FaceDiffuser, "open", lambda *_, **__: pytest.fail("it was opened"))
    assert main([*arguments, "--json"]) == 1
    assert "stdout, which is closed" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["0", "-1"])
def test_a_number_of_threads_is_refused_in_a_sentence(
    threads: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--threads", threads]) == 1
    assert "threads must be a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGTERM, "stopped by SIGTERM; nothing was written"),
     (signal.SIGINT, "interrupted; nothing was written")],
)  # fmt: skip
def test_a_stopped_drawing_says_that_nothing_was_written(
    number: int,
    words: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FaceDiffuser, "open", lambda *_, **__: os.kill(os.getpid(), number))
    assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == words


def test_every_option_has_help_and_its_default() -> None:
    for action in command.parser()._actions:
        assert action.help, action.dest
        default = action.default
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert str(default) in action.help % {"default": default}, action.dest


def test_maps_are_written_beside_the_picture(arguments: list[str], tmp_path: Path) -> None:
    maps = tmp_path / "maps.npz"
    words = [*arguments, "--alpha", "0", "--beta", "1", "--num-images", "2", "--maps", str(maps)]
    assert main(words) == 0
    with np.load(maps) as found:
        assert found["step"].tolist() == [0, 1]
        for name in ("tdm", "sdm", "mask"):
            assert found[name].shape == (2, 2, 8, 8)
        np.testing.assert_allclose(found["tdm"].sum((2, 3)), 1, rtol=1e-5)
        assert found["mask"].dtype == np.bool_
    assert len(list(tmp_path.glob("picture-*.png"))) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--maps", "maps.png"], "several arrays; name it .npz"),
        (["--maps", "maps.npz", "--fusion", "addition"], "addition has none"),
    ],
)
def test_maps_that_cannot_be_written_are_refused(
    words: list[str], reason: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *words]) == 1
    assert reason in capsys.readouterr().err.splitlines()[-1]
