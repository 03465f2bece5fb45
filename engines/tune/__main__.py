"""`python -m engines.tune BUNDLE`: measure what computes the U-Nets fastest on this processor.

Times one U-Net call (two rows, the model's own picture size) on every CPU provider that is
installed, in every precision and on fewer and fewer threads, then the fastest with several images
in a call, and keeps the result for whoever opens the bundle here without saying what to compute
with, and for the server, which draws jobs together where that pays.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.bundle.records import document_of
from engines.cli.command import run_command
from engines.cli.parser import command_parser
from engines.engine import HostPrecision, Provider
from engines.providers import HOST_PROVIDERS
from engines.threads import checked_threads
from engines.tune.race import in_words, race


def parser() -> argparse.ArgumentParser:
    flags = command_parser(
        commands.TUNE, __doc__, ["bundle"], ["bundle", "--provider", "openvino", "--limit", 60]
    )
    flags.add_argument("bundle", type=Path, help="the bundle's folder")
    flags.add_argument(
        "--provider",
        choices=[each.value for each in HOST_PROVIDERS],
        help="this one alone (default: all)",
    )
    flags.add_argument(
        "--precision", choices=[each.value for each in HostPrecision],
        help="this one alone (default: all)",
    )  # fmt: skip
    flags.add_argument(
        "--threads", type=int, metavar="N",
        help="on so many threads alone (default: all processors, and fewer)",
    )  # fmt: skip
    flags.add_argument(
        "--quantization", choices=[each.value for each in Quantization],
        help="measure the U-Nets in 8 bits (default: their own precision)",
    )  # fmt: skip
    flags.add_argument(
        "--limit", type=float, default=math.inf, metavar="S",
        help="stop after so many seconds (default: none)",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    return run_command(lambda: _tuned(options), as_json=options.json)


def _tuned(options: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(options.bundle).quantized(options.quantization)
    bundle.require_models(commands.typed(commands.TUNE))
    bundle.verify()
    say = (lambda _: None) if options.json else print
    asked: tuple[Provider | None, HostPrecision | None, int | None] = (
        options.provider and Provider(options.provider),
        options.precision and HostPrecision(options.precision),
        checked_threads(options.threads),
    )
    provider, precision, threads = asked
    record = race(
        bundle, provider=provider, precision=precision, threads=threads, limit_s=options.limit,
        together=True, say=say,
    )  # fmt: skip
    best = record.fastest(*asked)
    assert best is not None  # a race measures something that fits, or raises
    say(f"{best.settings.in_words()} is the fastest: {in_words(best.call_s)} a call")
    found: dict[str, Any] = document_of(record)
    return found | {"fastest": document_of(best)}


if __name__ == "__main__":
    sys.exit(main())
