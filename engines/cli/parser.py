"""What all commands' --help share: a title, groups, every default, and an example to copy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from engines import commands


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Tells the default of every option that has one, where its help does not do so itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        about = action.help or ""
        if (
            action.nargs == 0
            or not action.option_strings
            or action.default in (None, "", argparse.SUPPRESS)
            or "default:" in about
        ):
            return about
        if isinstance(action.default, Sequence) and not isinstance(action.default, str):
            told = " ".join(map(str, action.default)).replace("%", "%%")
            return f"{about} (default: {told or 'none'})"
        return f"{about} (default: %(default)s)"


def command_parser(
    command: str, about: str | None, *examples: Sequence[object], epilog: str = ""
) -> argparse.ArgumentParser:
    """The parser of one command.

    command: its module, as in `engines.commands`. about: what it does. examples: the words that
    follow the command in each line to copy. epilog: what else stands below the options.
    """
    lines = [f"  {commands.typed(command, *words)}" for words in examples]
    title = "example:" if len(lines) == 1 else "examples:"
    parts = [epilog, "\n".join([title, *lines]) if lines else ""]
    return argparse.ArgumentParser(
        prog=commands.typed(command),
        description=about,
        epilog="\n\n".join(filter(None, parts)),
        formatter_class=_Formatter,
    )
