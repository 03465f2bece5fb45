"""DDIM, PNDM and DPM-Solver++(2M), float64, as the papers state them: with a state, no table."""

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

    def dpmpp_2m(self, step: int, latents: Array, noise: Array) -> Array:
        """Lu et al. 2022, Algorithm 2, from level to level; the last step predicts the picture."""
        alpha = self.alphas[self.timesteps]
        signal, sigma = np.sqrt(alpha), np.sqrt(1 - alpha)
        self.kept.append((latents - sigma[step] * noise) / signal[step])
        if step == len(self.timesteps) - 1:
            return self.kept[-1]
        log_snr = np.log(signal / sigma)
        h = log_snr[step + 1] - log_snr[step]
        clean = self.kept[-1]
        if step > 0:
            r = (log_snr[step] - log_snr[step - 1]) / h
            clean = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * self.kept[-2]
        carried = sigma[step + 1] / sigma[step] * latents
        moved: Array = carried - signal[step + 1] * np.expm1(-h) * clean
        return moved
