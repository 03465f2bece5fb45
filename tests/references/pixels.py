"""The VAE's output as a picture, float64."""

import numpy as np
import numpy.typing as npt


def pixels(decoded: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """[images, 3, h, w] in [-1, 1] -> [images, h, w, 3]: clamped, scaled, rounded half to even."""
    levels = np.clip(decoded / 2 + 0.5, 0, 1) * 255
    return np.rint(levels).astype(np.uint8).transpose(0, 2, 3, 1)
