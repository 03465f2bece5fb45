"""An engine's answer looked at before it is used: numbers, and not the same one everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines import commands
from engines.contract import Component
from engines.engine import Array
from engines.errors import ConstantOutputError
from runtime.non_finite import non_finite


def check_output(
    component: Component, output: Array, provider: str, where: str, bundle: Path
) -> None:
    """Raise NonFiniteError or ConstantOutputError for an answer that is none.

    output: [n, width], [n, tokens, width] or [n, channels, h, w]. where: such as " at step 3".
    """
    if not np.isfinite(output).all():
        raise non_finite(component, provider, where, bundle)
    # Places, last: tokens or pixels. Two of them differ in nearly every answer, which ends it.
    rows = len(output)
    places = output.reshape(rows, output.shape[1], -1)
    if output.ndim == 3:
        places = places.swapaxes(1, 2)
    elif output.ndim == 2:
        places = places.reshape(rows, 1, -1)
    first, middle = places[..., 0], places[..., places.shape[-1] // 2]
    if (first != middle).any(1).all():
        return
    constant = (places == first[..., None]).reshape(rows, -1).all(1)
    if output.size > rows and constant.any():
        raise ConstantOutputError(
            f"{component} on {provider} gave the same numbers everywhere{where}, as an engine does "
            "that computes nothing or has lost its weights; check the bundle with",
            fix=commands.verified(bundle),
        )
