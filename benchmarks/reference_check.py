"""Whether an engine still draws the reference's picture; without that, no speed is reported."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.record import ReferenceMismatchError
from benchmarks.workload import GUIDANCE_SCALE, SEED, Workload, prompt, references
from engines.contract import LATENT_PX, SIZE_MULTIPLE_PX
from engines.manifest import Manifest, Precision
from export.checkpoints import ModelSource
from export.parity import PIPELINE_BOUNDS, relative_l2
from export.pipeline import TorchPipeline, TorchRequest
from runtime import FaceDiffuser, GuidanceRule, OutputType

Array = npt.NDArray[np.float32]

# One step of each stage, small: what every road must share, at a cost that no benchmark feels.
_STEPS, _START_MERGE_STEP, _FINAL_STEP = 3, 0, 1
_SIDE_PX = 2 * SIZE_MULTIPLE_PX
_PEOPLE = 2


@dataclass(frozen=True)
class Agreement:
    """Distance from the reference. relative_l2: |found - expected| / |expected|."""

    relative_l2: float
    bound: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


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
    """PyTorch's latents of one small request in float32, computed when they are first needed."""

    def __init__(self, source: ModelSource, manifest: Manifest) -> None:
        self._source = source
        self._manifest = manifest
        self._latents: Array | None = None

    def check(self, face_diffuser: FaceDiffuser) -> Agreement:
        """Hold an open bundle's latents against them; raises ReferenceMismatchError."""
        request = Workload(steps=_STEPS, people=_PEOPLE).request(
            height=None,
            width=None,
            latents=self._initial_latents(),
            start_merge_step=_START_MERGE_STEP,
            final_step=_FINAL_STEP,
            guidance_rule=GuidanceRule.RELEASED,
            output_type=OutputType.LATENT,
        )
        found = face_diffuser.generate(request).images
        bound = PIPELINE_BOUNDS[self._manifest.precision]
        return agreement(face_diffuser.provider, found, self._expected(), bound)

    def _expected(self) -> Array:
        if self._latents is None:
            half = self._manifest.precision is Precision.FP16
            pipeline = TorchPipeline(self._source, self._manifest.dimensions, rounded_to_half=half)
            final = pipeline.final_latents(
                TorchRequest(
                    prompt=prompt(_PEOPLE),
                    references=references(_PEOPLE),
                    latents=torch.from_numpy(self._initial_latents()),
                    num_inference_steps=_STEPS,
                    guidance_scale=GUIDANCE_SCALE,
                    start_merge_step=_START_MERGE_STEP,
                    final_step=_FINAL_STEP,
                )
            )
            self._latents = final.numpy()
        return self._latents

    def _initial_latents(self) -> Array:
        channels = self._manifest.dimensions.latent_channels
        side = _SIDE_PX // LATENT_PX
        noise = np.random.RandomState(SEED).standard_normal((1, channels, side, side))
        return noise.astype(np.float32)
