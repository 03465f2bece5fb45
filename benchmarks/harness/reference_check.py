"""Whether an engine still draws the reference's picture; without that, no speed is reported."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.harness.workload import GUIDANCE_SCALE, SEED, Workload, prompt, references
from benchmarks.schema.facts import Agreement
from engines.bundle.manifest import Manifest, Precision
from engines.contract import LATENT_PX, SIZE_MULTIPLE_PX
from engines.engine import HostPrecision
from engines.gate import (
    BFLOAT16_PIPELINE_BOUND,
    PIPELINE_BOUNDS,
    PLAN_PIPELINE_BOUNDS,
    relative_l2,
)
from engines.tune.settings import HostSettings
from export.checks.torch_pipeline import TorchPipeline, TorchRequest
from export.source import ModelSource
from runtime import FaceDiffuser, Fusion, GuidanceRule, OutputType

Array = npt.NDArray[np.float32]

# One step of each stage, small: what every backend must share, at a cost that no benchmark feels.
_STEPS, _START_MERGE_STEP, _FINAL_STEP = 3, 0, 1
_SIDE_PX = 2 * SIZE_MULTIPLE_PX
_PEOPLE = 2


def agreement(what: str, found: Array, expected: Array, bound: float) -> Agreement:
    """Raises ReferenceMismatchError beyond the bound, or where anything is not finite."""
    if found.shape != expected.shape:
        raise ReferenceMismatchError(
            f"{what} gives {list(found.shape)}, the reference {list(expected.shape)}; "
            "nothing was timed"
        )
    error = relative_l2(found.astype(np.float32), expected.astype(np.float32))
    if not error <= bound:
        raise ReferenceMismatchError(
            f"{what} is {error:.2e} from the reference (relative L2), the bound is {bound:.0e}; "
            "no speed is reported for it"
        )
    return Agreement(error, bound)


class Reference:
    """PyTorch's latents of one request in float32, computed when they are first needed."""

    def __init__(self, source: ModelSource, manifest: Manifest) -> None:
        self._source = source
        self._manifest = manifest
        self._latents: dict[tuple[int, bool], Array] = {}

    def check(self, face_diffuser: FaceDiffuser) -> Agreement:
        """Hold an open bundle's latents against them; raises ReferenceMismatchError.

        On the CPU the picture is small; a GPU's plans may admit no other size than the model's own,
        and its noises are averaged, so that the bound follows from that of the U-Nets.
        """
        on_cpu = face_diffuser.host_settings is not None
        side_px = _SIDE_PX if on_cpu else self._manifest.dimensions.native_px
        request = Workload(steps=_STEPS, people=_PEOPLE).request(
            height=None,
            width=None,
            latents=self._initial_latents(side_px),
            start_merge_step=_START_MERGE_STEP,
            final_step=_FINAL_STEP,
            guidance_rule=GuidanceRule.RELEASED,
            fusion=Fusion.SALIENCY if on_cpu else Fusion.ADDITION,
            output_type=OutputType.LATENT,
        )
        found = face_diffuser.generate(request).array
        bound = self._bound(face_diffuser.host_settings)
        expected = self.expected(side_px, averages=not on_cpu)
        return agreement(face_diffuser.provider, found, expected, bound)

    def _bound(self, host: HostSettings | None) -> float:
        if host is not None and host.precision is HostPrecision.BFLOAT16:
            return BFLOAT16_PIPELINE_BOUND
        bounds = PLAN_PIPELINE_BOUNDS if host is None else PIPELINE_BOUNDS
        return bounds[self._manifest.precision]

    def expected(self, side_px: int, *, averages: bool = False) -> Array:
        """PyTorch's final latents [1, 4, h, w] of the check's request at one size."""
        key = (side_px, averages)
        if key not in self._latents:
            half = self._manifest.precision is Precision.FP16
            pipeline = TorchPipeline(self._source, self._manifest.dimensions, rounded_to_half=half)
            final = pipeline.final_latents(
                TorchRequest(
                    prompt=prompt(_PEOPLE),
                    references=references(_PEOPLE),
                    latents=torch.from_numpy(self._initial_latents(side_px)),
                    num_inference_steps=_STEPS,
                    guidance_scale=GUIDANCE_SCALE,
                    start_merge_step=_START_MERGE_STEP,
                    final_step=_FINAL_STEP,
                    averages=averages,
                )
            )
            self._latents[key] = final.numpy()
        return self._latents[key]

    def _initial_latents(self, side_px: int) -> Array:
        channels, side = self._manifest.dimensions.latent_channels, side_px // LATENT_PX
        noise = np.random.RandomState(SEED).standard_normal((1, channels, side, side))
        return noise.astype(np.float32)
