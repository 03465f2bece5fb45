"""Whose exception it is: a library's own, or one that only passed through it."""

from __future__ import annotations

import sys
from collections.abc import Iterable

_OURS = __name__.removesuffix(".blame")


def raised_within(error: BaseException, packages: Iterable[str]) -> bool:
    """Whether an exception comes from these packages, the standard library or this toolkit alone.

    A library that is called may raise whatever it stumbles over. What a signal handler of the
    caller raises meanwhile (a time limit, for example) travels the same way, but has a frame of the
    caller's in its traceback: it must not be taken for the library's.
    """
    known = {*packages, *sys.stdlib_module_names, _OURS.partition(".")[0], "runtime", "export"}
    known -= {"__main__"}
    traceback = error.__traceback__
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in known:
            return False
        traceback = traceback.tb_next
    return True
