"""What the kernels recorded and engines left of numbers that are none, as an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.contract import Component
from engines.engine import Array
from runtime.gpu.kernels import Model
from runtime.outputs import check_output, non_finite
from runtime.trajectory import Trajectory


def check_faults(
    faults: npt.NDArray[np.int32], trajectory: Trajectory, provider: str, bundle: Path
) -> None:
    """Look at what the kernels recorded; raises NonFiniteError for the first fault.

    faults: [images, 4] int32. In the first row 0 or 1 + the step for each U-Net, in each image's
    not 0 for the decoder.
    """
    models = ((Model.TDM, Component.TDM_UNET), (Model.SDM, Component.SDM_UNET))
    steps = faults[0]
    found = [(int(steps[model]), component) for model, component in models if steps[model]]
    if found:
        first, component = min(found)
        where = f" at step {first - 1}, timestep {trajectory.timestep(first - 1)}"
        raise non_finite(component, provider, where, bundle)
    undecoded = np.flatnonzero(faults[:, Model.DECODER])
    if undecoded.size:
        where = f" in image {undecoded[0] + 1} of {len(faults)}" if len(faults) > 1 else ""
        raise non_finite(Component.VAE_DECODER, provider, where, bundle)


def check_predictions(predictions: Mapping[Component, Array], provider: str, bundle: Path) -> None:
    """Look at what each U-Net left in its last step; raises ConstantOutputError.

    An engine that writes nothing leaves the zeros that were there when it was set up.
    """
    for component, prediction in predictions.items():
        check_output(component, prediction, provider, " in its last step", bundle)
