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
        return _failed(str(error), type(error).__name__, fix=error.fix, as_json=as_json)
    except OSError as error:
        hint = "; free some space and run the same command again, it resumes"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _failed(f"{error}{hint if full else ''}", type(error).__name__, as_json=as_json)
    except KeyboardInterrupt:
        return _failed(
            "interrupted; the same command resumes", "KeyboardInterrupt", as_json=as_json
        )
    if as_json:
        print(json.dumps(outcome))
    return DONE


def _failed(reason: str, kind: str, *, as_json: bool, fix: str | None = None) -> int:
    if as_json:
        print(json.dumps({"error": kind, "reason": reason, "fix": fix}))
    print(" ".join(reason.split()), file=sys.stderr)
    return FAILED
