"""An ONNX file's graph, for all who read or change one."""

from __future__ import annotations

from pathlib import Path

import onnx


def load_graph(path: Path) -> onnx.ModelProto:
    """A graph without its weights file."""
    return onnx.load(path, load_external_data=False)
