"""Numbers that are not finite, and whose they are: an error, never a black picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines import commands
from engines.contract import Component
from engines.errors import NonFiniteError
from runtime.gpu.kernels import Model
from runtime.trajectory import Trajectory


def non_finite(component: Component, provider: str, where: str, bundle: Path) -> NonFiniteError:
    """The error of one engine; where: such as " at step 3, timestep 601"."""
    return NonFiniteError(
        f"{component} on {provider} produced NaN or infinity{where}; check the bundle with",
        fix=commands.verified(bundle),
    )


def check_faults(
    faults: npt.NDArray[np.int32], trajectory: Trajectory, provider: str, bundle: Path
) -> None:
    """Look at what the kernels recorded; raises NonFiniteError for the first fault.

    faults: [4] int32, 0 or 1 + the step for each U-Net, not 0 for the decoder.
    """
    models = ((Model.TDM, Component.TDM_UNET), (Model.SDM, Component.SDM_UNET))
    found = [(int(faults[model]), component) for model, component in models if faults[model]]
    if found:
        first, component = min(found)
        where = f" at step {first - 1}, timestep {trajectory.timestep(first - 1)}"
        raise non_finite(component, provider, where, bundle)
    if faults[Model.DECODER]:
        raise non_finite(Component.VAE_DECODER, provider, "", bundle)
