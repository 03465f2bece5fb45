"""Children: they find what their parent finds, and how they end is told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from engines.system.processes import Child, run_module

CHILD = """
import json, os, sys
from engines.system.processes import ParentPipe
pipe = ParentPipe()
print("what a library prints")
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("end"):
        sys.exit("the last\\nword")
    pipe.send({"answer": asked["ask"] + 1, "variable": os.environ.get("VARIABLE")})
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that only this process's search path leads to."""
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_child"


def test_a_child_is_asked_and_answers_while_libraries_print(child: str) -> None:
    with Child(child, environment={"VARIABLE": "set"}) as running:
        assert running.send({"ask": 1})
        assert running.receive() == {"answer": 2, "variable": "set"}
        assert running.send({"ask": 2})
        assert running.receive() == {"answer": 3, "variable": "set"}


def test_a_variable_is_taken_away(child: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARIABLE", "here")
    with Child(child, environment={"VARIABLE": None}) as running:
        running.send({"ask": 1})
        assert running.receive() == {"answer": 2, "variable": None}
    assert os.environ["VARIABLE"] == "here"


def test_the_last_words_and_the_code_of_a_child_are_told(child: str) -> None:
    with Child(child, keep_stderr=True) as running:
        running.send({"end": True})
        assert running.receive() is None
        ended = running.ended()
        assert (ended.code, ended.last_words) == (1, "word")
        assert not running.send({"ask": 1}), "it hears no more"


def test_a_child_that_does_not_hear_is_killed(tmp_path: Path, child: str) -> None:
    (tmp_path / "deaf.py").write_text("import time; time.sleep(60)")
    running = Child("deaf")
    started = time.monotonic()
    running.close(grace_s=0.2)
    assert time.monotonic() - started < 5
    assert running.ended().code == -9


def test_a_child_ends_when_its_parent_closes(child: str) -> None:
    running = Child(child)
    running.close()
    assert running.ended().code == 0


def test_the_folder_it_is_started_in_hides_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    ended = run_module("json.tool", "--help")
    assert (ended.code, ended.printed.startswith("usage")) == (0, True), ended.last_words


def test_a_run_that_takes_too_long_is_stopped() -> None:
    ended = run_module("timeit", "-n1", "-r1", "import time; time.sleep(30)", limit_s=0.5)
    assert (ended.code, ended.last_words) == (None, "not done after 0 s")
