"""Memory of processes: resident now, resident at most, and on the GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def peak_rss_nbytes() -> int:
    """The most that this process ever had resident, mapped files included.

    Linux's getrusage would also count what the parent had when it started this process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kib) * 1024
    import resource  # not on Windows, where nothing here runs

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_nbytes(process: int) -> int:
    """What a process has resident now, mapped files included; 0 once it is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def tree_rss_nbytes(process: int) -> int:
    """What a process and its descendants have resident; shared pages count in each."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        children = []
    return rss_nbytes(process) + sum(tree_rss_nbytes(int(child)) for child in children)


def gpu_nbytes(process: int) -> int | None:
    """GPU memory that a process holds, its context included; None where no GPU tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split(",") for line in answer.stdout.splitlines() if line.strip()]
    used = [int(mib) for pid, mib in rows if int(pid) == process and mib.strip().isdigit()]
    return sum(used) * 2**20 if used else None
