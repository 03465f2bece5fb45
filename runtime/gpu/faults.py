"""What the kernels recorded of numbers that are not finite, as an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.contract import Component
from runtime.gpu.kernels import Model
from runtime.non_finite import non_finite
from runtime.trajectory import Trajectory


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
