"""What to type: the toolkit's commands, as they are spelled where this copy of it is installed.

In a checkout a command is `python -m export.build`; in a wheel everything lies below one name and
the same command is `python -m face_diffuser.export.build`. Messages take their commands from here.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

# "" in a checkout, "face_diffuser." in a wheel.
PREFIX = __name__.removesuffix("engines.commands")

BUILD = "export.build"
BISECT = "export.bisect"
PLANS = "engines.build"
VERIFY = "engines.verify"
INSPECT = "engines.inspect"
DIFF = "engines.diff"
DRAW = "runtime"
DOCTOR = "runtime.doctor"
BENCHMARKS = "benchmarks"
SERVER = "server"

# Of export.build: the two halves of a bundle, each by itself.
ONNX_ONLY, PLANS_ONLY = "--onnx-only", "--plans-only"

_BUILD_WORDS = "build/command.json"


def typed(module: str, *words: object) -> str:
    """One of the commands above with its words, quoted for a shell."""
    return shlex.join(["python", "-m", PREFIX + module, *map(str, words)])


def rebuilt(bundle: object, *further: object, without: str = "") -> str:
    """What builds a bundle again, with the words that it was built with where it keeps them.

    without: one of them that is left out. further: more of them.
    """
    try:
        words = json.loads((Path(str(bundle)) / _BUILD_WORDS).read_bytes())
        known = isinstance(words, list) and all(isinstance(word, str) for word in words)
    except (OSError, ValueError, RecursionError):
        known = False
    kept = [word for word in words if word != without] if known else []
    return typed(BUILD, *kept, *further, "--out", bundle)


def remember_build(bundle: Path, words: Sequence[str]) -> None:
    """Keep the words of a build command in the bundle's folder, for `rebuilt`.

    --out is left out, because a bundle may be moved, and paths are made absolute, because the
    command may be typed elsewhere.
    """
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("--out", "--json"):
            if word == "--out":
                next(rest, None)
        elif not word.startswith("--out="):
            kept.append(str(Path(word).resolve()) if _is_path(word) else word)
    path = bundle / _BUILD_WORDS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept))


def _is_path(word: str) -> bool:
    return os.sep in word and not word.startswith("-") and Path(word).exists()


def plans_built(bundle: object, *words: object) -> str:
    """What builds a bundle's plans on this machine."""
    return typed(PLANS, bundle, *words)


def verified(bundle: object) -> str:
    """What checks the digest of every file of a bundle."""
    return typed(VERIFY, bundle)


def on_gpu(bundle: object) -> str:
    """What compares a bundle's plans with the CPU on this machine's GPU, and records it."""
    return typed(VERIFY, bundle, "--on-gpu")


def installed(*extras: str) -> str:
    """What installs extras of this toolkit, for a checkout (`pip install -e`) and a wheel alike."""
    return f'pip install "face-diffuser[{",".join(extras)}]"'
