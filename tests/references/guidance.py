"""Guidance of both models, float64 (paper, Eq. 1 and Eq. 2; the released code for its own rule)."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def tdm_guided(null: Array, text: Array, scale: float) -> tuple[Array, Array]:
    """Eq. 1: (guided noise, guidance)."""
    return null + scale * (text - null), scale * (text - null)


def sdm_guided_paper(
    null: Array, text: Array, augmented: Array, scale: float
) -> tuple[Array, Array]:
    """Eq. 2: (guided noise, guidance)."""
    return null + scale * (augmented - text), scale * (augmented - text)


def sdm_guided_released(text: Array, augmented: Array, scale: float) -> tuple[Array, Array]:
    """The released code's SDM, which starts where it points from: (guided noise, guidance)."""
    return text + scale * (augmented - text), scale * (augmented - text)
