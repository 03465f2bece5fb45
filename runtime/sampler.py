"""The loop: scene construction, subject-scene fusion, subject enhancement (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable

from runtime.method.schedule import Stage
from runtime.result import StepInfo
from runtime.trajectory import Drawn, Stepper, Trajectory

OnStep = Callable[[StepInfo], None]


def sample(
    trajectory: Trajectory,
    stepper: Stepper,
    on_step: OnStep | None = None,
    *,
    still_wanted: Callable[[], None] = lambda: None,
) -> Drawn:
    """Denoise with two models on one trajectory.

    Every step ends on the same latents, whoever predicted their noise, and the next one starts from
    them. on_step is called when a step is done; without it, nothing waits for any step but the
    last. still_wanted is called before each step and raises to end the run.
    """
    for step, stage in enumerate(trajectory.stages()):
        still_wanted()
        match stage:
            case Stage.SCENE:
                stepper.scene(step)
            case Stage.FUSION:
                stepper.fusion(step)
            case Stage.SUBJECT:
                stepper.subject(step)
        if on_step is not None:
            stepper.wait()
            on_step(
                StepInfo(
                    step=step,
                    num_steps=len(trajectory),
                    timestep=trajectory.timestep(step),
                    stage=stage,
                    read_latents=stepper.latents_reader(),
                    previews=trajectory.previews,
                )
            )
    return stepper.finish()
