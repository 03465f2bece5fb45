"""Flags that several benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.harness.backends import CPU, TORCH, providers
from benchmarks.harness.model_source import add_source_flags


def add_bundle_flags(flags: argparse.ArgumentParser) -> None:
    """Which bundle, on how many processor cores, and which checkpoint is its reference."""
    flags.add_argument("--bundle", type=Path, default=Path("bundle"))
    flags.add_argument("--threads", type=int, help="processor cores to use (default: all)")
    add_source_flags(flags)


def add_provider_flag(flags: argparse.ArgumentParser, *, torch: bool = False) -> None:
    """Which of the runtime's providers; torch: or the CUDA runtime on torch modules."""
    flags.add_argument(
        "--provider", default=CPU, choices=[p for p in providers() if torch or p != TORCH],
        help="what runs the bundle (default: %(default)s)",
    )  # fmt: skip
