"""What to type: the toolkit's commands, as they are spelled where this copy of it is installed.

In a checkout a command is `python -m export.build`; in a wheel everything lies below one name and
the same command is `python -m face_diffuser.export.build`. Messages take their commands from here.
"""

from __future__ import annotations

import shlex

# "" in a checkout, "face_diffuser." in a wheel.
PREFIX = __name__.removesuffix("engines.commands")

BUILD = "export.build"
BISECT = "export.bisect"
PLANS = "engines.build"
VERIFY = "engines.verify"
DRAW = "runtime"
DOCTOR = "runtime.doctor"
BENCHMARKS = "benchmarks"


def typed(module: str, *words: object) -> str:
    """One of the commands above with its words, quoted for a shell."""
    return shlex.join(["python", "-m", PREFIX + module, *map(str, words)])


def rebuilt(bundle: object) -> str:
    """What builds a bundle again."""
    return typed(BUILD, "--out", bundle)


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
