"""What all command lines share: exit codes, the reason on the last line of stderr, --json."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from typing import Any

from engines.errors import FaceDiffuserError

DONE, FAILED = 0, 1


def run_command(command: Callable[[], dict[str, Any]], *, as_json: bool) -> int:
    """Run a command and turn its outcome into an exit code.

    The command returns what --json prints. Errors on purpose, a full disk and Ctrl-C exit with 1
    and their reason on the last line of stderr; anything else is a defect and shows its traceback.
    """
    try:
        outcome = command()
    except FaceDiffuserError as error:
        return _failed(type(error).__name__, error.reason, error.fix, as_json=as_json)
    except OSError as error:
        hint = "; free some space and run the same command again, it resumes"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = f"{error}{hint if full else ''}"
        return _failed(type(error).__name__, reason, as_json=as_json)
    except KeyboardInterrupt:
        reason = "interrupted; the same command resumes"
        return _failed("KeyboardInterrupt", reason, as_json=as_json)
    if as_json:
        print(json.dumps(outcome))
    return DONE


def _failed(kind: str, reason: str, fix: str | None = None, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": kind, "reason": reason, "fix": fix}))
    told = reason if fix is None else f"{reason}: {fix}"
    print(" ".join(told.split()), file=sys.stderr)
    return FAILED
