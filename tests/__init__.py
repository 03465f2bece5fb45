"""Tests mirror the tree.

Kernels run in Triton's interpreter here, on the CPU. That is chosen when Triton is imported, which
other libraries also do, so it is said before anything else is imported.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
