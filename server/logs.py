"""The log: one JSON object a line, of requests and jobs, never of prompts, photos or people."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

LOGGER = logging.getLogger("face_diffuser.server")


def tell(event: str, **facts: Any) -> None:
    """Write one line: what happened, and numbers and ids about it."""
    line = {"time": round(time.time(), 3), "event": event, **facts}
    LOGGER.info(json.dumps(line, default=str))


def tell_defect(error: BaseException, **facts: Any) -> None:
    """Write where an error was raised; its words are left out, as they may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{each.filename}:{each.lineno} {each.name}" for each in frames]
    tell("defect", error=type(error).__name__, places=places, **facts)


def log_to_stderr() -> None:
    """Send the lines to stderr, as they are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
