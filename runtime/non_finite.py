"""Numbers that are not finite, and whose they are: an error, never a black picture."""

from __future__ import annotations

from pathlib import Path

from engines import commands
from engines.contract import Component
from engines.errors import NonFiniteError


def non_finite(component: Component, provider: str, where: str, bundle: Path) -> NonFiniteError:
    """The error of one engine; where: such as " at step 3, timestep 601"."""
    return NonFiniteError(
        f"{component} on {provider} produced NaN or infinity{where}; check the bundle with",
        fix=commands.verified(bundle),
    )
