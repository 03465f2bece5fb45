"""What messages tell a user to type."""

from __future__ import annotations

import io
import json
import pickle
from contextlib import redirect_stderr, redirect_stdout

from engines import commands
from engines.cli.command import run_command
from engines.errors import BundleError, PlanMismatchError


def test_words_are_quoted_for_a_shell() -> None:
    assert commands.rebuilt("my bundle") == "python -m export.build --out 'my bundle'"
    assert commands.typed(commands.BUILD, "--opset", 21) == "python -m export.build --opset 21"


def test_one_spelling_installs_extras_from_a_checkout_and_from_a_wheel() -> None:
    assert commands.installed("export", "cpu") == 'pip install "face-diffuser[export,cpu]"'


def test_an_error_carries_its_command_as_a_field_through_pickle_too() -> None:
    error = PlanMismatchError("no plans; build them with", fix="python -m engines.build x")
    assert str(error) == "no plans; build them with: python -m engines.build x"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.reason, again.fix) == (
        PlanMismatchError, str(error), error.reason, error.fix,
    )  # fmt: skip


def test_a_failed_command_prints_one_line_and_one_json_object() -> None:
    def fail() -> dict[str, object]:
        raise BundleError("it is\nbroken; type", fix="repair it")

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert run_command(fail, as_json=True) == 1
    assert err.getvalue() == "it is broken; type: repair it\n"
    found = json.loads(out.getvalue())
    assert (found["error"], found["fix"]) == ("BundleError", "repair it")
