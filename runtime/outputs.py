"""An engine's answer looked at before it is used: numbers, and not the same one everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines import commands
from engines.contract import Component
from engines.engine import Array
from engines.errors import ConstantOutputError, NonFiniteError


def check_output(
    component: Component, output: Array, provider: str, where: str, bundle: Path
) -> None:
    """Raise NonFiniteError or ConstantOutputError for an answer that is none.

    output: [n, width], [n, tokens, width] or [n, channels, h, w]. where: such as " at step 3".
    """
    if not np.isfinite(output).all():
        raise non_finite(component, provider, where, bundle)
    rows = len(output)
    places = output.reshape(rows, output.shape[1], -1)
    if output.ndim == 3:
        places = places.swapaxes(1, 2)
    elif output.ndim == 2:
        places = places.reshape(rows, 1, -1)
    if output.size > rows and not vary(places):
        raise ConstantOutputError(
            f"{component} on {provider} gave the same numbers everywhere{where}, as an engine does "
            "that computes nothing or has lost its weights; check the bundle with",
            fix=commands.verified(bundle),
        )


def vary(places: Array) -> bool:
    """Whether in each row something differs from place to place.

    places: [rows, channels, tokens or pixels]. Two places differ in nearly every answer, which ends
    it.
    """
    rows = len(places)
    first, middle = places[..., 0], places[..., places.shape[-1] // 2]
    if (first != middle).any(1).all():
        return True
    return not (places == first[..., None]).reshape(rows, -1).all(1).any()


def non_finite(component: Component, provider: str, where: str, bundle: Path) -> NonFiniteError:
    """The error of one engine; where: such as " at step 3, timestep 601"."""
    return NonFiniteError(
        f"{component} on {provider} produced NaN or infinity{where}; check the bundle with",
        fix=commands.verified(bundle),
    )
