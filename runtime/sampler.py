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
    them. on_step is called when a step is done, while the steps that a stepper takes ahead are
    under way; without it, nothing waits for any step but the last. still_wanted is called before
    each step and raises to end the run.
    """
    told = _Told(trajectory, stepper, on_step)
    for step, stage in enumerate(trajectory.stages()):
        still_wanted()
        match stage:
            case Stage.SCENE:
                stepper.scene(step)
            case Stage.FUSION:
                stepper.fusion(step)
            case Stage.SUBJECT:
                stepper.subject(step)
        told.taken(step)
    told.rest()
    return stepper.finish()


class _Told:
    """Who hears of steps, in order, each as many steps late as the stepper takes ahead."""

    def __init__(self, trajectory: Trajectory, stepper: Stepper, on_step: OnStep | None) -> None:
        self._trajectory, self._stepper, self._on_step = trajectory, stepper, on_step
        self._waiting: list[int] = []

    def taken(self, step: int) -> None:
        if self._on_step is not None:
            self._stepper.mark(step)
            self._waiting.append(step)
            if len(self._waiting) > self._stepper.ahead:
                self._tell(self._on_step)

    def rest(self) -> None:
        while self._on_step is not None and self._waiting:
            self._tell(self._on_step)

    def _tell(self, on_step: OnStep) -> None:
        step, trajectory = self._waiting.pop(0), self._trajectory
        self._stepper.wait(step)
        on_step(
            StepInfo(
                step=step,
                num_steps=len(trajectory),
                timestep=trajectory.timestep(step),
                stage=trajectory.boundaries.stage(step),
                read_latents=self._stepper.latents_reader(step),
                previews=trajectory.previews,
            )
        )
