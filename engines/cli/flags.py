"""Command-line flags from a frozen dataclass: names, defaults and help are its fields'."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

Options = TypeVar("Options")


def add_flags(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Add a flag for each field: a switch for a bool, else an integer."""
    for field in dataclasses.fields(options):
        name = "--" + field.name.replace("_", "-")
        help_text = field.metadata["help"]
        if field.default is False:
            parser.add_argument(name, action="store_true", help=help_text)
        else:
            parser.add_argument(name, type=int, default=field.default, metavar="N", help=help_text)


def from_flags(namespace: argparse.Namespace, options: type[Options]) -> Options:
    """The dataclass that was asked for; raises what its own checks raise."""
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    return options(**{name: getattr(namespace, name) for name in names})
