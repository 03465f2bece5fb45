"""--help of every command: a sentence for each word, every default, an example that parses."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from importlib import import_module

import pytest

from benchmarks.__main__ import BENCHMARKS, measure_named, parser_of
from engines.cli.parser import command_parser
from face_diffuser.__main__ import COMMANDS

Parser = Callable[[], argparse.ArgumentParser]


def _of(module: str) -> Parser:
    return lambda: import_module(module).parser()


def _of_benchmark(name: str) -> Parser:
    return lambda: parser_of(measure_named(name).options)


PARSERS: dict[str, Parser] = {
    **{command.module: _of(command.module) for command in COMMANDS.values()},
    **{
        module: _of(module)
        for module in ("export.bisect.__main__", "mini.train", "mini.ship", "mini.front_page")
    },
    **{f"benchmarks {name}": _of_benchmark(name) for name in BENCHMARKS},
}
every_command = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


@every_command
def test_every_word_has_its_sentence_and_every_value_its_default(parser: Parser) -> None:
    flags = parser()
    formatter = flags._get_formatter()
    for action in flags._actions:
        if action.help == argparse.SUPPRESS:
            continue
        assert action.help, action.dest
        told = formatter._expand_help(action)
        if action.option_strings and action.nargs != 0:
            assert "default" in told, action.option_strings
            assert "None" not in told, action.option_strings


@every_command
def test_its_examples_can_be_typed(parser: Parser) -> None:
    flags = parser()
    lines = [line.strip() for line in (flags.epilog or "").splitlines()]
    examples = [shlex.split(line) for line in lines if line.startswith("python -m ")]
    assert examples
    for words in examples:
        assert f"python -m {words[2]}" == flags.prog
        if flags.prog != "python -m benchmarks":  # whose flags depend on the benchmark
            flags.parse_args(words[3:])
        else:
            assert words[3] in BENCHMARKS


@pytest.mark.parametrize(
    "module", ["export.build", "runtime.__main__", "server.__main__", "engines.build"]
)
def test_long_lists_of_options_are_grouped(module: str) -> None:
    titles = [group.title for group in PARSERS[module]()._action_groups]
    assert len(titles) > 2


def test_a_default_is_told_once_and_a_percent_sign_is_no_trap() -> None:
    flags = command_parser("engines.verify", "Trial.", ["bundle"])
    flags.add_argument("--places", nargs="+", default=["a%b", "c"], help="where")
    flags.add_argument("--count", type=int, default=3, help="how many (default: three)")
    flags.add_argument("--name", help="whose")
    told = " ".join(flags.format_help().split())
    assert "where (default: a%b c)" in told
    assert "how many (default: three)" in told and "default: 3" not in told
    assert told.endswith("--name NAME whose example: python -m engines.verify bundle")
