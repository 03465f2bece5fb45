"""Where this toolkit keeps what it can make again: the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Its folder of the user's cache ($XDG_CACHE_HOME, else ~/.cache); it need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "face-diffuser"
