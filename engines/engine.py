"""One Protocol for all backends: bind a component to its buffers once, enqueue it many times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.contract import Component
from engines.errors import ContractError

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


def check_buffers(
    component: Component, dtypes: Mapping[str, np.dtype[Any]], buffers: Mapping[str, Array]
) -> None:
    """Raise ContractError unless there is a contiguous buffer of its dtype for every tensor."""
    if set(buffers) != set(dtypes):
        raise ContractError(
            f"{component} was given buffers {sorted(buffers)}, its tensors are {sorted(dtypes)}"
        )
    for name, buffer in buffers.items():
        if buffer.dtype != dtypes[name] or not buffer.flags.c_contiguous:
            raise ContractError(
                f"{component} takes {name} as contiguous {dtypes[name]}, got {buffer.dtype}"
            )
