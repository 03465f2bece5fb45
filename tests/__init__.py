"""Tests mirror the tree.

Kernels run in Triton's interpreter here, on the CPU. That is chosen when Triton is imported, which
other libraries also do, so it is said before anything else is imported.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if _WORKER and hasattr(os, "sched_setaffinity"):
    # One core for each worker: thread pools that all spin on all cores would mostly wait for each
    # other. Pools are as large as the cores that are there when PyTorch is imported.
    _CORES = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_CORES[int(_WORKER.removeprefix("gw")) % len(_CORES)]})
