"""Kernels run in Triton's interpreter here, on the CPU; it is chosen when a kernel is imported."""

import os
import sys

if "TRITON_INTERPRET" not in os.environ and "kernels" in sys.modules:
    raise RuntimeError("kernels were imported before TRITON_INTERPRET=1 was set; set it earlier")
os.environ.setdefault("TRITON_INTERPRET", "1")
