"""One Protocol for all backends: bind a component to its buffers once, enqueue it many times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A component of a bundle, ready to run.

    dtypes: element type of every tensor of the contract, as this engine takes and gives it.
    """

    provider: str

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]: ...

    def bind(self, buffers: Mapping[str, Array]) -> None:
        """Fix the buffer of every input and output tensor; shapes are those of the buffers.

        The buffers stay the caller's, are read and written in place by every enqueue, and must
        outlive the binding. Raises ContractError if names, dtypes or shapes do not fit.
        """
        ...

    def enqueue(self) -> None:
        """Compute the bound outputs from the bound inputs."""
        ...

    def close(self) -> None:
        """Give the memory back; the engine is of no use afterwards."""
        ...
