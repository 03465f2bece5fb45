"""A model's own U-Net calls: trajectories drawn by a bundle's float32 graphs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto, helper
from PIL import Image, ImageOps
from torch import Tensor

from engines.bundle.manifest import ComponentRecord, Dimensions
from engines.contract import CONTRACTS, LATENT_PX, NOISE_PREDICTORS, Component
from engines.onnxruntime.cpu import session_in_memory
from engines.system.heap import trim_heap
from export.checkpoint.checkpoint import CheckpointError
from export.checks.torch_pipeline import TorchPipeline, TorchRequest
from export.graph.file import load_graph
from export.source import ModelSource

Float32Array = npt.NDArray[np.float32]
GUIDANCE_SCALE = 5.0
# The paper's shares of the steps, alpha and beta.
_SCENE, _FUSION = 0.3, 0.6


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A trajectory: a prompt with a marker for each person, their photos, and the noise's seed."""

    prompt: str
    photos: tuple[Path, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a U-Net as it was made, and what the graphs answered.

    inputs: by tensor name. prediction: [passes * images, 4, h, w]. extra: the other outputs that
    were asked for, by name.
    """

    component: Component
    inputs: Mapping[str, Float32Array]
    prediction: Float32Array
    inner: Mapping[str, Float32Array]


class BundlePipeline(TorchPipeline):
    """Draws by the paper's rule with a bundle's graphs, and tells of every call of a U-Net.

    inner: names of tensors inside a U-Net that its calls are to tell of. keep_open: whether all
    sessions stay open; otherwise one is at a time.
    """

    def __init__(
        self,
        source: ModelSource,
        dimensions: Dimensions,
        bundle: Path,
        records: Mapping[Component, ComponentRecord],
        hear: Callable[[Call], None],
        *,
        inner: Mapping[Component, Sequence[str]],
        keep_open: bool,
    ) -> None:
        super().__init__(source, dimensions, rounded_to_half=False)
        self._bundle, self._records, self._hear = bundle, records, hear
        self._inner, self._keep_open = inner, keep_open
        self._sessions: dict[Component, Any] = {}
        self._null: Tensor | None = None

    def draw(self, picture: Picture, steps: int) -> None:
        """One trajectory at the model's native size."""
        side = self._dimensions.native_px // LATENT_PX
        shape = (1, self._dimensions.latent_channels, side, side)
        noise = np.random.RandomState(picture.seed).standard_normal(shape).astype(np.float32)
        self.final_latents(
            TorchRequest(
                prompt=picture.prompt,
                references=picture.photos,
                latents=torch.from_numpy(noise),
                num_inference_steps=steps,
                guidance_scale=GUIDANCE_SCALE,
                start_merge_step=int(_SCENE * steps) - 1,
                final_step=int(_FUSION * steps) - 1,
            )
        )

    def prompt_embeds(self, request: TorchRequest) -> tuple[Tensor, Tensor, Tensor]:
        null, text, augmented = super().prompt_embeds(request)
        self._null = null
        return null, text, augmented

    def _guided(
        self,
        component: Component,
        latents: Tensor,
        timestep: Tensor,
        passes: tuple[Tensor, Tensor],
        request: TorchRequest,
    ) -> tuple[Tensor, Tensor]:
        """SDM's guided noise starts at the null pass (paper, Eq. 2), as the toolkit's default."""
        assert self._null is not None
        embeds = passes if component is Component.TDM_UNET else (self._null, *passes)
        prediction = self._run(
            component,
            latents=latents,
            timestep=timestep.float().expand(len(latents)),
            prompt_embeds=torch.cat(embeds),
        )
        parts = prediction.chunk(len(embeds))
        guidance = request.guidance_scale * (parts[-1] - parts[-2])
        return parts[0] + guidance, guidance

    def _run(self, component: Component, **inputs: Tensor) -> Tensor:
        session = self._session(component)
        feed = {name: value.numpy() for name, value in inputs.items()}
        names = [each.name for each in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        answer: Float32Array = outputs.pop(CONTRACTS[component].outputs[0].name)
        if component in NOISE_PREDICTORS:
            call = Call(component=component, inputs=feed, prediction=answer, inner=outputs)
            self._hear(call)
        return torch.from_numpy(answer)

    def _reference(self, path: Path, resolution: int) -> Tensor:
        """Photos of any shape, cut to squares: calibration needs faces, not framing."""
        square = ImageOps.fit(check_photo(path), (resolution, resolution))
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255
        return self._reference_pixels(pixels)

    def _session(self, component: Component) -> Any:
        if component not in self._sessions:
            if not self._keep_open:
                self._sessions.clear()
                trim_heap()
            path = self._bundle / self._records[component].cpu_onnx
            self._sessions[component] = opened(path, self._inner.get(component, ()))
        return self._sessions[component]


def check_photo(path: Path) -> Image.Image:
    """A photo in RGB; raises CheckpointError where it cannot be read."""
    try:
        with Image.open(path) as photo:
            return photo.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise CheckpointError(f"{path} is no photo to calibrate with: {error}") from error


def opened(path: Path, inner: Sequence[str] = ()) -> Any:
    """A float32 graph's session, with tensors of its inside among its outputs."""
    model = load_graph(path)
    ends = {each.name for each in model.graph.input}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in inner
        if name not in ends
    )
    return session_in_memory(model.SerializeToString(), path.parent)
