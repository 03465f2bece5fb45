"""Whether the kernels on this GPU are right, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.snf.trial import GUIDES, SCALE, KernelTrial
from kernels.variants import VARIANTS
from runtime.gpu.kernels import Model
from runtime.method.guidance import guided
from runtime.method.saliency import fused_by_saliency
from runtime.method.schedule import Column

# Nearer to a tie than this, float32 rounding decides a pixel.
NEAR = 1e-6
# A dozen float32 roundings of values up to about 60.
LATENTS_TOLERANCE = 12 * 60 * 2.0**-24

_VARIANTS = {variant.name: variant for variant in VARIANTS}
Outputs = dict[str, torch.Tensor]


class KernelMismatchError(ReferenceMismatchError):
    """A kernel's result is not what the plain formulas give; nothing was timed."""


def check(trial: KernelTrial) -> str:
    """Hold every kernel against numpy and just-in-time compilation; raises KernelMismatchError.

    Returns "identical", or why the second was not compared: it needs a C compiler and Python's
    headers, and numpy stays the judge without it.
    """
    fusion = trial.outputs(trial.fusion(keep_saliency=True))
    _against_numpy("fusion", trial, fusion)
    just_in_time = "identical"
    try:
        compiled = (
            _outputs_of(_just_in_time_fusion, trial),
            _outputs_of(_just_in_time_guided, trial),
        )
    except Exception as error:
        # Triton raises whatever its tools do: no gcc, no Python.h, no driver that it knows.
        just_in_time = f"not compared: {type(error).__name__}: {error}".splitlines()[0]
    else:
        _identical("fusion", fusion, compiled[0])
        _identical("guided step", trial.outputs(trial.guided()), compiled[1])
    exact = (trial.decoded.double() / 2 + 0.5).clamp(0, 1) * 255
    picture = trial.outputs(trial.pixels())["picture"]
    _require("pixels", torch.equal(picture, exact.round().byte().permute(0, 2, 3, 1)))
    return just_in_time


def _against_numpy(kernel: str, trial: KernelTrial, found: Outputs) -> None:
    tdm, sdm = (
        guided(prediction.cpu().numpy(), guide, SCALE)
        for prediction, guide in zip((trial.tdm, trial.sdm), GUIDES, strict=True)
    )
    _, saliency = fused_by_saliency(tdm, sdm)
    mask = found["mask"].cpu().numpy() == 1
    margin = np.log(saliency.sdm.astype(np.float64)) - np.log(saliency.tdm.astype(np.float64))
    # Both sides round here, so a pixel is decided only beyond twice the distance.
    decided = np.abs(margin) > 2 * NEAR
    _require(kernel, bool((mask == saliency.mask)[decided].all()))
    noise = np.where(mask[:, None], sdm.noise, tdm.noise)
    row = trial.table[0].double().cpu().numpy()
    expected = row[Column.LATENTS] * trial.initial_latents.double().cpu().numpy()
    expected += row[Column.NOISE] * noise
    error = np.abs(found["latents"].cpu().numpy() - expected).max()
    _require(kernel, bool(error <= LATENTS_TOLERANCE))
    _require(kernel, torch.equal(found["engine_latents"], found["latents"].half()))
    _require(kernel, found["clock"].tolist() == [1, 0])
    _require(kernel, bool((found["timestep"] == trial.table[1, Column.TIMESTEP]).all()))
    _require(kernel, not found["faults"].any())


def _identical(kernel: str, found: Outputs, expected: Outputs) -> None:
    for name, tensor in expected.items():
        same = torch.equal(tensor.nan_to_num(-1.0), found[name].nan_to_num(-1.0))
        _require(f"{kernel}, {name} of cubin and just in time", same)


def _require(what: str, fulfilled: bool) -> None:  # noqa: FBT001
    if not fulfilled:
        raise KernelMismatchError(f"{what}: the kernel's result is wrong; nothing was timed")


def _outputs_of(launch: Callable[[KernelTrial], None], trial: KernelTrial) -> Outputs:
    trial.latents.copy_(trial.initial_latents)
    trial.clock.zero_()
    launch(trial)
    return trial.copies()


def _just_in_time(name: str, grid: tuple[int, ...], *arguments: object) -> None:
    variant = _VARIANTS[name]
    options = {"num_warps": variant.warps, "num_stages": 1, "enable_fp_fusion": False}
    variant.kernel[grid](*arguments, **variant.constants, **options)


def _roles(*, start: bool) -> list[int]:
    return [
        role
        for guide in GUIDES
        for role in ([guide.start] if start else []) + [guide.base, guide.target]
    ]


def _just_in_time_fusion(trial: KernelTrial) -> None:
    t, plane = trial, trial.size.plane
    saliency, blend = t.fusion()
    columns = next(c for c in (64, 128, 256) if c >= t.size.width)
    _just_in_time(
        f"fusion_saliency_w{columns}",
        saliency.grid,
        *(t.tdm, t.sdm, t.tdm_saliency, t.sdm_saliency, t.sums, t.table, t.clock),
        *(*_roles(start=False), t.size.height, t.size.width, plane),
    )
    _just_in_time(
        "fusion_blend",
        blend.grid,
        *(t.tdm, t.sdm, t.latents, t.engine_latents, t.history),
        *(t.tdm_saliency, t.sdm_saliency, t.sums, t.mask),
        *(t.table, t.clock, t.timestep, t.faults),
        *(*_roles(start=True), plane, saliency.grid[0], 1),
    )


def _just_in_time_guided(trial: KernelTrial) -> None:
    t, guide = trial, GUIDES[0]
    (launch,) = t.guided()
    _just_in_time(
        "guided_step",
        launch.grid,
        *(t.tdm, t.latents, t.engine_latents, t.history, t.delta),
        *(t.table, t.clock, t.timestep, t.faults),
        *(Model.TDM, guide.start, guide.base, guide.target, 0, t.size.image_elements),
    )
