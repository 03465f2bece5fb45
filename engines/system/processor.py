"""The processor that this process runs on."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor_name() -> str | None:
    """Its model, as the system tells it; None where it does not."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = ""
    found = re.search(r"^model name\s*:\s*(.*)$", told, re.MULTILINE)
    return (found.group(1).strip() if found else "") or platform.processor() or None
