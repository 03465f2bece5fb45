"""The reference's scheduler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from export.checks.torch_pipeline import ddim_of


def test_ddim_of_a_released_pndm_configuration_clips_nothing() -> None:
    """Stable Diffusion 1.5's says nothing of clip_sample, which diffusers' DDIM would clip for."""
    released = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012}
    source: Any = SimpleNamespace(scheduler_config=lambda: released)
    scheduler = ddim_of(source)
    assert type(scheduler).__name__ == "DDIMScheduler"
    assert scheduler.config.clip_sample is False
    assert (scheduler.config.beta_start, scheduler.config.beta_end) == (0.00085, 0.012)
