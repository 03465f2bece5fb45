"""UniPC of order 2 with B(h) = e^h - 1 (Zhao et al. 2023, "bh2"), on predicted clean latents.

The corrector improves the latents of a step when the next prediction is there; here both are one
row of the next step. Everything is linear, so each quantity is the vector of its weights over
(latents, noise, x0 kept last, x0 kept before).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from runtime.method.solvers.dpm_solver import log_snr
from runtime.method.solvers.solver import Float64Array, Grid, Solver, Update, trailing_to_zero

_LATENTS, _NOISE, _LAST, _BEFORE = np.eye(4)


@dataclass(frozen=True, kw_only=True)
class _Predicted:
    """How the latents came from the corrected ones before: carried * those + added; its order."""

    carried: float
    added: Float64Array
    order: int


def updates(grid: Grid, boundaries: Collection[int]) -> list[Update]:
    """Second order; first, and uncorrected, at the start and where a stage begins."""
    sqrt_alpha, sigma = np.sqrt(grid.alphas), np.sqrt(1 - grid.alphas)
    rows: list[Update] = []
    before: _Predicted | None = None
    for step, target in enumerate(grid.targets):
        starts = step == 0 or step in boundaries
        clean = (_LATENTS - sigma[step] * _NOISE) / sqrt_alpha[step]
        corrected: Float64Array = _LATENTS
        if before is not None and not starts:
            corrected = _corrected(grid, step, clean, before)
        new = clean
        if target < 1:
            ahead = log_snr(target) - log_snr(grid.alphas[step])
            carried = float(np.sqrt(1 - target) / sigma[step])
            toward = -np.sqrt(target) * np.expm1(-ahead)
            slope = 0.0
            if not starts:
                behind = log_snr(grid.alphas[step]) - log_snr(grid.alphas[step - 1])
                slope = float(ahead / (2 * behind))
            new = carried * corrected + toward * (clean + slope * (clean - _LAST))
            # Seen from the next step, this one's x0 is the last.
            added = toward * ((1 + slope) * _LAST - slope * _BEFORE)
            before = _Predicted(carried=carried, added=added, order=1 if starts else 2)
        latents, noise, *history = (float(weight) for weight in new)
        keep = (float(clean[0]), float(clean[1]))
        rows.append(Update(latents, noise, tuple(history), keep=keep))
    return rows


def _corrected(grid: Grid, step: int, clean: Float64Array, before: _Predicted) -> Float64Array:
    """The step's latents, taken again from those before with this step's x0 (the paper's UniC)."""
    here, last = log_snr(grid.alphas[step]), log_snr(grid.alphas[step - 1])
    h = here - last
    decay = np.expm1(-h)
    started_from = (_LATENTS - before.added) / before.carried
    ratio = np.sqrt((1 - grid.alphas[step]) / (1 - grid.alphas[step - 1]))
    first_order = ratio * started_from - np.sqrt(grid.alphas[step]) * decay * _LAST
    if before.order == 1:
        correction = (clean - _LAST) / 2
    else:
        r = (log_snr(grid.alphas[step - 2]) - last) / h
        phi = decay / -h - 1
        right = [phi / decay, 2 * (phi / -h - 1 / 2) / decay]
        weights = np.linalg.solve(np.array([[1.0, 1.0], [r, 1.0]]), np.array(right))
        correction = weights[0] * (_BEFORE - _LAST) / r + weights[1] * (clean - _LAST)
    moved: Float64Array = first_order - np.sqrt(grid.alphas[step]) * decay * correction
    return moved


TRAILING = Solver(grid=trailing_to_zero, updates=updates)
