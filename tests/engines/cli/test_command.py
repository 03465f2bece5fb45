"""Exit codes, the reason on the last line of stderr, and --json."""

from __future__ import annotations

import errno
import json
import signal
import sys
from typing import Any

import pytest

from engines.cli.command import DONE, FAILED, run_command
from engines.errors import BundleError, FaceDiffuserError


def raising(error: BaseException) -> Any:
    def command() -> dict[str, Any]:
        raise error

    return command


def test_what_a_command_returns_is_printed_where_json_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(lambda: {"built": ["a"]}, as_json=False) == DONE
    assert capsys.readouterr() == ("", "")
    assert run_command(lambda: {"built": ["a"]}, as_json=True) == DONE
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"built": ["a"]}, "")


def test_a_reason_is_the_last_line_of_stderr_and_json_is_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = raising(BundleError("it is\n  broken", fix="mend it"))
    assert run_command(broken, as_json=False) == FAILED
    assert capsys.readouterr() == ("", "it is broken: mend it\n")
    assert run_command(broken, as_json=True) == FAILED
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": "BundleError", "reason": "it is\n  broken", "fix": "mend it"
    }  # fmt: skip
    assert err == "it is broken: mend it\n"


@pytest.mark.parametrize(
    ("error", "resumes", "reason"),
    [
        (KeyboardInterrupt(), True, "interrupted; the same command resumes"),
        (KeyboardInterrupt(), False, "interrupted; nothing was written"),
        (
            OSError(errno.ENOSPC, "No space left"), True,
            "[Errno 28] No space left; free some space and run the same command again, it resumes",
        ),
        (
            OSError(errno.ENOSPC, "No space left"), False,
            "[Errno 28] No space left; free some space and run the same command again",
        ),
        (OSError(errno.EACCES, "Permission denied"), True, "[Errno 13] Permission denied"),
    ],
)  # fmt: skip
def test_what_stops_a_command_is_told_with_what_to_do(
    error: BaseException, *, resumes: bool, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error), as_json=False, resumes=resumes) == FAILED
    assert capsys.readouterr() == ("", f"{reason}\n")


def test_sigterm_closes_what_is_open_and_the_handler_is_as_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    closed: list[str] = []

    def command() -> dict[str, Any]:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append("it")
        return {}

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(command, as_json=False) == FAILED
    assert closed == ["it"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "stopped by SIGTERM; the same command resumes\n"


def test_a_defect_shows_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), as_json=True)


def test_json_without_a_standard_output_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def command() -> dict[str, Any]:
        done.append("it")
        return {}

    monkeypatch.setattr(sys, "stdout", None)
    assert run_command(command, as_json=True) == FAILED
    assert not done
    assert capsys.readouterr().err == "--json prints on stdout, which is closed\n"
    assert run_command(raising(FaceDiffuserError("so")), as_json=True) == FAILED
