"""DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): second order in the predicted clean latents."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from engines.bundle.manifest import NoiseSchedule
from runtime.method.solvers.solver import Float64Array, Grid, Solver, Update, trailing_to_zero

# Karras et al. 2022, section 5 and Table 1.
_RHO = 7.0


def updates(grid: Grid, boundaries: Collection[int]) -> list[Update]:
    """Second order; first at the start, where a stage begins and at the last step (no noise left).

    What is kept is x0 = (latents - sigma * noise) / sqrt(alpha).
    """
    sqrt_alpha, sigma = np.sqrt(grid.alphas), np.sqrt(1 - grid.alphas)
    levels = log_snr(grid.alphas)
    rows = []
    for step, target in enumerate(grid.targets):
        keep = (float(1 / sqrt_alpha[step]), float(-sigma[step] / sqrt_alpha[step]))
        carried = np.sqrt(1 - target) / sigma[step]
        if target == 1:
            toward, older = 1.0, 0.0
        else:
            ahead = log_snr(target) - levels[step]
            toward, older = float(-np.sqrt(target) * np.expm1(-ahead)), 0.0
            if step > 0 and step not in boundaries:
                # x0 + (x0 - older x0) / (2 r), with r the ratio of the last step to this one.
                older = -toward * ahead / (2 * (levels[step] - levels[step - 1]))
        now = toward - older
        rows.append(Update(carried + now * keep[0], now * keep[1], (older,), keep=keep))
    return rows


def karras_grid(schedule: NoiseSchedule, steps: int) -> Grid:
    """Levels of Karras et al. 2022 (Eq. 5, rho 7) over all that the model knows, then no noise.

    The timesteps are the nearest ones to these levels.
    """
    sigmas = noise_to_signal(schedule.alphas_cumprod())
    ends = sigmas[-1] ** (1 / _RHO), sigmas[0] ** (1 / _RHO)
    chosen = np.linspace(*ends, steps) ** _RHO
    nearest = np.interp(np.log(chosen), np.log(sigmas), np.arange(len(sigmas))).round()
    alphas = 1 / (1 + chosen**2)
    return Grid(
        timesteps=tuple(int(timestep) for timestep in nearest),
        alphas=alphas,
        targets=np.append(alphas[1:], 1.0),
        shares=tuple(float(1 - (t + 1) / schedule.num_train_timesteps) for t in nearest),
    )


def noise_to_signal(alphas: Float64Array) -> Float64Array:
    """Karras' sigma: the noise's scale where the picture's is 1."""
    ratio: Float64Array = np.sqrt((1 - alphas) / alphas)
    return ratio


def log_snr(alphas: Float64Array) -> Float64Array:
    """Half the logarithm of the signal-to-noise ratio (the paper's lambda); alphas below 1."""
    return -np.log(noise_to_signal(alphas))


TRAILING = Solver(grid=trailing_to_zero, updates=updates)
KARRAS = Solver(grid=karras_grid, updates=updates)
