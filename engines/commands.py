"""What to type: the toolkit's commands, as they are spelled where this copy of it is installed.

In a checkout a command is `python -m export.build`; in a wheel everything lies below one name and
the same command is `python -m face_diffuser.export.build`. Messages take their commands from here.
"""

from __future__ import annotations

import json
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
TUNE = "engines.tune"
DRAW = "runtime"
DOCTOR = "runtime.doctor"
BENCHMARKS = "benchmarks"
SERVER = "server"

# Of export.build: the two halves of a bundle, each by itself.
ONNX_ONLY, PLANS_ONLY = "--onnx-only", "--plans-only"
# And some components alone.
ONLY = "--only"

_BUILD_WORDS = "build/command.json"
_OF_PATHS = ("--base", "--tdm", "--sdm", "--image-encoder", "--tdm-lora", "--sdm-lora")


def typed(module: str, *words: object) -> str:
    """One of the commands above with its words, quoted for a shell."""
    return shlex.join(["python", "-m", PREFIX + module, *map(str, words)])


def rebuilt(bundle: object, *further: object, without: str = "") -> str:
    """What builds a bundle again, with the words that it was built with where it keeps them.

    without: one of them that is left out. further: words that are to be
    among them.
    """
    try:
        words = json.loads((Path(str(bundle)) / _BUILD_WORDS).read_bytes())
        known = isinstance(words, list) and all(isinstance(word, str) for word in words)
    except (OSError, ValueError, RecursionError):
        known = False
    kept = [word for word in words if word != without] if known else []
    added = [word for word in further if word not in kept]
    return typed(BUILD, *kept, *added, "--out", bundle)


def remember_build(bundle: Path, words: Sequence[str]) -> None:
    """Keep the words of a build command in the bundle's folder, for `rebuilt`.

    --out is left out, because a bundle may be moved, --only with its names, because what finishes
    a build builds all, and paths are made absolute, because the command may be typed elsewhere.
    """
    kept: list[str] = []
    rest = iter(words)
    named_alone = False
    for word in rest:
        flag, equals, value = word.partition("=")
        named_alone = flag == ONLY or (named_alone and not word.startswith("--"))
        if named_alone:
            continue
        if flag == "--out":
            if not equals:
                next(rest, None)
        elif flag in _OF_PATHS:
            kept += [f"{flag}={_absolute(value)}"] if equals else [word, _absolute(next(rest, ""))]
        elif word != "--json":
            kept.append(word)
    path = bundle / _BUILD_WORDS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept))


def _absolute(word: str) -> str:
    """A path as it may be typed from anywhere, a LoRA's weight behind it; hub ids stay."""
    path, colon, weight = word.rpartition(":")
    if not Path(word).exists() and path and Path(path).exists():
        return f"{Path(path).resolve()}{colon}{weight}"
    return str(Path(word).resolve()) if Path(word).exists() else word


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
