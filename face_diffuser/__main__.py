"""`face-diffuser COMMAND ...`: the toolkit's commands under one name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from engines import commands
from engines.onnxruntime.pool import share_threads
from face_diffuser import __version__


@dataclass(frozen=True, kw_only=True)
class Command:
    """module: whose main() takes the words that follow the command's name."""

    module: str
    help: str


COMMANDS = {
    "build": Command(
        module=commands.BUILD, help="make a bundle of trained checkpoints, checked and ready to run"
    ),
    "plans": Command(
        module=commands.PLANS, help="build a bundle's TensorRT plans for this machine's GPU"
    ),
    "draw": Command(module=f"{commands.DRAW}.__main__", help="draw a picture from a bundle"),
    "serve": Command(
        module=f"{commands.SERVER}.__main__", help="draw pictures over HTTP, with a page to try it"
    ),
    "verify": Command(module=commands.VERIFY, help="check the digest of every file of a bundle"),
    "inspect": Command(
        module=commands.INSPECT, help="what a bundle holds, how exact it is, what was proved of it"
    ),
    "diff": Command(module=commands.DIFF, help="what two bundles' manifests say differently"),
    "tune": Command(
        module=f"{commands.TUNE}.__main__",
        help="measure what draws a bundle fastest on this processor",
    ),
    "doctor": Command(
        module=f"{commands.DOCTOR}.__main__", help="what this machine has, lacks, and what fixes it"
    ),
}


def parser() -> argparse.ArgumentParser:
    """For the first word alone; what follows a command is the command's own."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    flags = argparse.ArgumentParser(
        prog="face-diffuser",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="Face-Diffuser's toolkit. Each command has its own --help.",
        epilog="\n".join(["commands:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    flags.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return flags


def main(words: list[str] | None = None) -> int:
    """Run one command, importing what it needs alone; exit codes are the command's."""
    own_process = words is None
    words = sys.argv[1:] if words is None else words
    command = COMMANDS[parser().parse_args(words[:1]).command]
    if own_process and command is COMMANDS["draw"]:
        share_threads()
    run: Callable[[list[str]], int] = import_module(commands.PREFIX + command.module).main
    return run(words[1:])


if __name__ == "__main__":
    sys.exit(main())
