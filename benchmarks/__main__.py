"""`python -m benchmarks NAME [--quick] [--json]`: run one benchmark and append its record."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks.harness.imports import missing_package
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options, quick_defaults
from benchmarks.harness.record import ReferenceMismatchError, not_measured
from benchmarks.report.headings import warnings_of
from benchmarks.schema.record import Record, Status
from benchmarks.schema.results import append, line_of, recover
from engines.bundle.records import RecordError, document_of
from engines.cli.command import run_command
from engines.cli.flags import add_flags, from_flags
from engines.cli.parser import command_parser
from engines.commands import BENCHMARKS as COMMAND
from engines.commands import installed
from engines.errors import ProviderUnavailableError

# Each is a module of MODULES, whose MEASURE says what it is told and what it does.
BENCHMARKS = {
    "latency": "one picture: where its time goes, start-up and memory",
    "throughput": "pictures a second against images per call and concurrent requests",
    "serving": "the server under load: HTTP's cost, goodput, cancelling, memory",
    "presets": "whole pictures of each preset in turns: what the faster ones save here",
    "scaling": "cost against steps, size, people and images, beside the counted FLOPs",
    "peers": "the same work by what a user would pick instead, in turns with ours",
    "build": "time and peak memory of each step of an export",
    "roofline": "this machine's peaks, and how near each component comes to them",
    "quality": "identity and prompt consistency of the shipped model; needs no GPU",
    "table1": "the paper's Table 1 on your photographs, from a bundle of released weights",
    "kernels": "the kernels against eager and compiled PyTorch; needs a GPU",
    "cubins": "what the compiled kernels are made of; needs no GPU",
    "device": "a GPU without PyTorch: kernels, steps, calls of 1 to 8 images, fusion, memory",
    "gpu": "everything that a GPU can tell, in under nine minutes",
    "report": "one HTML page and its plots from the records; measures nothing",
}
MODULES = {name: f"benchmarks.measures.{name}" for name in BENCHMARKS} | {
    "presets": "benchmarks.pictures.presets",
    "table1": "benchmarks.photographs.table1",
}


def main(words: list[str] | None = None) -> int:
    """Exit code 0: measured; 1: failed or skipped, with the reason; 2: the words were wrong."""
    words = sys.argv[1:] if words is None else words
    # The name decides which module's flags are read, and only that module is imported.
    name = next((word for word in words if word in BENCHMARKS), None)
    if name is None:
        parser_of(Options).parse_args(words)  # says what it wants, and ends the program
        return 2
    try:
        measure = measure_named(name)
    except ModuleNotFoundError as error:
        package = missing_package(error)
        if package is None:
            raise
        return run_command(partial(_lacking, name, package), as_json="--json" in words)
    options = options_of(measure.options, words)
    return run_command(partial(_run, name, measure, options), as_json=options.json)


def measure_named(name: str) -> Measure[Any, Any]:
    """What the module of this name offers."""
    measure: Measure[Any, Any] = import_module(MODULES[name]).MEASURE
    return measure


def options_of(options: type[Options], words: list[str]) -> Options:
    """What the words say, else the defaults, which a quick run has its own of."""
    parser = parser_of(options)
    if parser.parse_args(words).quick:
        parser.set_defaults(**quick_defaults(options))
    try:
        return from_flags(parser.parse_args(words), options)
    except RecordError as error:
        parser.error(str(error))


def parser_of(options: type[Options]) -> argparse.ArgumentParser:
    """The parser of one benchmark's words."""
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:<{width}}  {about}" for name, about in BENCHMARKS.items()]
    parser = command_parser(
        COMMAND,
        "Measure, print, and append to benchmarks/results/.",
        ["latency", "--bundle", "bundle", "--quick"],
        ["report"],
        epilog="\n".join(["benchmarks, each with its own --help:", *lines]),
    )
    parser.add_argument(
        "name", choices=BENCHMARKS, metavar="NAME", help="what to measure, of the list below"
    )
    add_flags(parser, options)
    return parser


def _lacking(name: str, package: str) -> dict[str, Any]:
    raise ProviderUnavailableError(
        f"{name} needs {package}, which is not installed; type", fix=installed("bench", "cpu")
    )


def _run(name: str, measure: Measure[Any, Any], options: Options) -> dict[str, Any]:
    """Measure, print and append; what was skipped or refused is appended as that, and raised."""
    # Of an earlier run that was ended in the middle.
    recover(name, options.results)
    try:
        found = measure.measure(options)
    except (ProviderUnavailableError, ReferenceMismatchError) as error:
        # What it had measured until then stands before the reason.
        recover(name, options.results)
        skipped = isinstance(error, ProviderUnavailableError)
        status = Status.SKIPPED if skipped else Status.REFUSED
        append(not_measured(name, options, status, error), options.results)
        raise
    path = append(found, options.results) if isinstance(found, Record) else None
    if not options.json:
        print(measure.text(found))
        if path is not None:
            print(f"appended to {path}")
    if isinstance(found, Record):
        for warning in warnings_of(found.header):
            print(f"warning: {warning}", file=sys.stderr)
    document: dict[str, Any] = line_of(found) if path is not None else document_of(found)
    return document


if __name__ == "__main__":
    sys.exit(main())
