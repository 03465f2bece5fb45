"""The machine that measures: processors, memory, clocks, load and GPU, as the system tells them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.schema.record import Machine
from engines.system.processor import processor_name
from engines.threads import processors

_ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_GPU_FACTS = (
    "name", "driver_version", "memory.total", "power.limit",
    "clocks.sm", "clocks.max.sm", "clocks.mem", "persistence_mode",
)  # fmt: skip
# Other processes took more than this share of the processors: timings are not this machine's own.
BUSY_SHARE = 0.1


def this_machine() -> Machine:
    """What a record says of the machine, but for the GPU that computes."""
    cpuinfo = _text("/proc/cpuinfo")
    share = others_share()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        kernel=platform.release(),
        cpu=processor_name(),
        cpus=os.cpu_count(),
        usable_cpus=processors(),
        isa=instruction_sets(),
        clock_mhz=_number(_first(r"^cpu MHz\s*:\s*(.*)$", cpuinfo)),
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        memory_nbytes=memory_nbytes(),
        others_share=None if share is None else round(share, 3),
        busy=None if share is None else share > BUSY_SHARE,
        gpu_facts=gpu_facts(),
        python=platform.python_version(),
    )


def instruction_sets() -> tuple[str, ...]:
    """Those that decide how fast matrix products can be."""
    flags = (_first(r"^flags\s*:\s*(.*)$", _text("/proc/cpuinfo")) or "").split()
    return tuple(name for name in _ISA if name in flags)


def memory_nbytes() -> int | None:
    """The machine's memory; None where the system does not tell."""
    kib = _number(_first(r"^MemTotal:\s*(\d+) kB", _text("/proc/meminfo")))
    return None if kib is None else int(kib) * 1024


def others_share() -> float | None:
    """Share of all processor time since this module was imported that other processes took.

    What ended child processes took is this one's own. None where the system does not tell.
    """
    spent = _spent_s()
    if spent is None or _AT_START is None:
        return None
    all_s, own_s, wall_s = (now - then for now, then in zip(spent, _AT_START, strict=True))
    return max(0.0, all_s - own_s) / (wall_s * (os.cpu_count() or 1)) if wall_s > 0 else 0.0


def _spent_s() -> tuple[float, float, float] | None:
    """Seconds of processor time of all processes and of this one's, and of wall clock."""
    ticks = re.match(r"cpu\s+(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+)", _text("/proc/stat"))
    if ticks is None:
        return None
    all_s = sum(map(int, ticks.groups())) / os.sysconf("SC_CLK_TCK")
    return all_s, sum(os.times()[:4]), time.monotonic()


def gpu_facts() -> dict[str, str] | None:
    """Name, driver, memory, power limit and clocks of the first GPU; None where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return dict(zip(_GPU_FACTS, values, strict=True)) if len(values) == len(_GPU_FACTS) else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else None


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


_AT_START = _spent_s()
