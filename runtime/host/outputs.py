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
    # Along tokens or pixels; NaN and infinity come through both reductions.
    along = output.reshape(*output.shape[:2], -1) if output.ndim == 4 else output
    axis = 2 if output.ndim == 4 else 1
    low, high = along.min(axis), along.max(axis)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise non_finite(component, provider, where, bundle)
    constant = (low == high).reshape(len(output), -1).all(1)
    if output.size > len(output) and constant.any():
        raise ConstantOutputError(
            f"{component} on {provider} gave the same numbers everywhere{where}, as an engine does "
            "that computes nothing or has lost its weights; check the bundle with",
            fix=commands.verified(bundle),
        )
