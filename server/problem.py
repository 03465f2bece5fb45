"""What a request is answered with where it cannot be met: a status, a kind and a sentence."""

from __future__ import annotations

import math
from typing import Any

from starlette.exceptions import HTTPException

from engines.errors import FaceDiffuserError
from runtime import CancelledError, DeviceMemoryError, RequestError
from server.jobs.engine import EngineLostError
from server.store.database import StoreError


class Problem(HTTPException):
    """An error answer.

    kind: one word for programs. retry_after_s: when the same request may do better; None where it
    never will.
    """

    def __init__(
        self, status: int, kind: str, message: str, *, retry_after_s: float | None = None
    ) -> None:
        waits = None if retry_after_s is None else max(1, math.ceil(retry_after_s))
        headers = None if waits is None else {"Retry-After": str(waits)}
        super().__init__(status, message, headers)
        self.kind = kind
        self.message = message
        self.retryable = waits is not None

    def document(self) -> dict[str, Any]:
        """The answer's JSON, in the shape that OpenAI's clients read too."""
        error = {"type": self.kind, "code": self.kind, "message": self.message, "param": None}
        return {"error": {**error, "retryable": self.retryable}}


def not_found(what: str) -> Problem:
    """Of what never was, what is gone, and what is another tenant's: the same answer."""
    return Problem(404, "not_found", f"there is no such {what}")


def problem_of(error: Exception) -> Problem:
    """The answer to what the runtime raised.

    Only the caller's own faults are told in the runtime's words; a defect's may tell of others.
    """
    match error:
        case Problem():
            return error
        case RequestError():
            told = error.reason if error.fix is None else f"{error.reason}: {error.fix}"
            return Problem(400, type(error).__name__, told)
        case CancelledError():
            return Problem(499, "cancelled", "the job was cancelled")
        case DeviceMemoryError():
            return Problem(503, "out_of_memory", error.reason, retry_after_s=10)
        case EngineLostError():
            return Problem(503, "engine_lost", error.reason, retry_after_s=10)
        case StoreError():
            return Problem(503, "store", "the server's store does not answer", retry_after_s=5)
        case FaceDiffuserError():
            return Problem(500, type(error).__name__, error.reason)
        case _:
            return Problem(500, "internal", "the server has a defect; its log tells where")
