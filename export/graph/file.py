"""An ONNX file's graph, for all who read or change one.

The onnx package refuses weights whose file has a second name, as the files do that a build takes
over from the bundle before; a bundle's own files are read here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, numpy_helper


def load_graph(path: Path) -> ModelProto:
    """A graph without its weights file."""
    return onnx.load(path, load_external_data=False)


def load_whole(path: Path) -> ModelProto:
    """A graph and its weights. Raises ValueError for weights that end too early."""
    model = load_graph(path)
    load_weights(model, path.parent)
    return model


def load_weights(model: ModelProto, folder: Path) -> None:
    """Read the weights that lie in files of a folder into their graph. Raises as `load_whole`."""
    for weight in model.graph.initializer:
        if weight.data_location == TensorProto.EXTERNAL:
            weight.raw_data = _content(weight, folder)
            weight.data_location = TensorProto.DEFAULT
            del weight.external_data[:]


def values_of(weight: TensorProto, folder: Path) -> npt.NDArray[np.generic]:
    """One weight's numbers, wherever they lie. Raises as `load_whole`."""
    if weight.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(weight)
    here = TensorProto(data_type=weight.data_type, dims=weight.dims)
    here.raw_data = _content(weight, folder)
    return numpy_helper.to_array(here)


def _content(weight: TensorProto, folder: Path) -> bytes:
    place = {each.key: each.value for each in weight.external_data}
    path, nbytes = folder / place["location"], int(place["length"])
    with path.open("rb") as file:
        file.seek(int(place.get("offset", 0)))
        content: bytes = file.read(nbytes)
    if len(content) != nbytes:
        raise ValueError(f"{path} ends within {weight.name}; build the bundle again")
    return content
