"""The steps of DDIM and PNDM, float64, as the papers state them: with a state, no table."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Steps:
    """Steps latents down a descending list of timesteps of a trained model's alphas_cumprod."""

    def __init__(self, alphas_cumprod: Array, timesteps: list[int], spacing: int) -> None:
        self.alphas = alphas_cumprod
        self.timesteps = timesteps
        self.spacing = spacing
        self.kept: list[Array] = []
        self.first_latents: Array

    def move(self, latents: Array, noise: Array, timestep: int) -> Array:
        """Song et al. 2021, Eq. 12 with sigma 0: through the predicted clean latents."""
        previous = timestep - self.spacing
        alpha = self.alphas[timestep]
        alpha_previous = self.alphas[previous] if previous >= 0 else self.alphas[0]
        clean = (latents - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)
        moved: Array = np.sqrt(alpha_previous) * clean + np.sqrt(1 - alpha_previous) * noise
        return moved

    def ddim(self, step: int, latents: Array, noise: Array) -> Array:
        return self.move(latents, noise, self.timesteps[step])

    def pndm(self, step: int, latents: Array, noise: Array) -> Array:
        """Liu et al. 2022, Eq. 12, started by the improved Euler step on the first interval."""
        if step == 1:
            return self.move(self.first_latents, (noise + self.kept[-1]) / 2, self.timesteps[0])
        if step == 0:
            self.first_latents = latents
        self.kept.append(noise)
        e = self.kept[::-1]
        if len(e) == 1:
            mixed = e[0]
        elif len(e) == 2:
            mixed = (3 * e[0] - e[1]) / 2
        elif len(e) == 3:
            mixed = (23 * e[0] - 16 * e[1] + 5 * e[2]) / 12
        else:
            mixed = (55 * e[0] - 59 * e[1] + 37 * e[2] - 9 * e[3]) / 24
        return self.move(latents, mixed, self.timesteps[step])
