"""placeholder"""
from dataclasses import dataclass
import numpy as np
import numpy.typing as npt
from functools import cached_property

@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise levels a model was trained on (a diffusers scheduler_config.json)."""

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    steps_offset: int
    set_alpha_to_one: bool
    scheduler: str

    def alphas_cumprod(self) -> npt.NDArray[np.float64]:
        """Share of the picture's variance left at each timestep, [num_train_timesteps] float64."""
        if self.beta_schedule == "scaled_linear":
            betas = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_train_timesteps) ** 2
        else:
            betas = np.linspace(self.beta_start, self.beta_end, self.num_train_timesteps)
        return np.cumprod(1 - betas)
