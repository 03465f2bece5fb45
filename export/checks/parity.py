"""The parity gate: each exported graph against its library's own module, before it is published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engines.bundle.manifest import Dimensions, Parity
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component
from engines.errors import FaceDiffuserError
from engines.gate import farthest, relative_l2
from engines.onnxruntime.cpu import OnnxRuntimeEngine
from export.checks.library import library_answer

Array = npt.NDArray[np.float32]


class ParityError(FaceDiffuserError):
    """An exported graph drifts from its torch module, or is not finite."""


@dataclass(frozen=True)
class GateCase:
    """Inputs of one comparison by tensor name, float32, with the torch module's output."""

    inputs: dict[str, Tensor]
    output: Array


def gate_inputs(component: Component, dimensions: Dimensions) -> Iterator[dict[str, Tensor]]:
    """Seeded inputs of realistic scale: one and two images, two sizes, timesteps over the schedule.

    Latents of every timestep have unit variance; embeds leave a layer norm, so they have it too.
    """
    generator = torch.Generator().manual_seed(2311_10329)
    size = dimensions

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    match component:
        case Component.TEXT_ENCODER:
            for n in (1, 3):
                high = 256
                shape = (n, size.tokens)
                yield {"input_ids": torch.randint(0, high, shape, generator=generator).int()}
        case Component.IMAGE_ENCODER:
            for n in (1, 2):
                yield {"reference_pixels": normal(n, 3, size.image_px, size.image_px)}
        case Component.FUSION_MLP:
            for n in (1, 2):
                mask = torch.rand(n, size.tokens, generator=generator) < 0.2
                yield {
                    "text_embeds": normal(n, size.tokens, size.text_width),
                    "token_subject_embeds": normal(n, size.tokens, size.subject_width),
                    "subject_token_mask": mask,
                }
        case Component.TDM_UNET | Component.SDM_UNET:
            for timesteps, passes, h, w in (
                ((981,), 2, 16, 8),
                ((501, 901), 3, 8, 16),
                ((21,), 3, 16, 16),
            ):
                images = len(timesteps)
                yield {
                    "latents": normal(images, size.latent_channels, h, w),
                    "timestep": torch.tensor(timesteps, dtype=torch.float32),
                    "prompt_embeds": normal(passes * images, size.tokens, size.text_width),
                }
        case Component.VAE_DECODER:
            for images, h, w in ((1, 8, 16), (2, 16, 8)):
                yield {"latents": normal(images, size.latent_channels, h, w)}


def example_inputs(component: Component, dimensions: Dimensions) -> dict[str, Tensor]:
    """Inputs to trace a module with: every symbolic dimension is 2 or more."""
    *_, last = gate_inputs(component, dimensions)
    if component in NOISE_PREDICTORS:
        return last | {
            "latents": torch.randn(2, dimensions.latent_channels, 16, 24),
            "timestep": torch.tensor([21.0, 901.0]),
            "prompt_embeds": torch.randn(4, dimensions.tokens, dimensions.text_width),
        }
    if component is Component.VAE_DECODER:
        return {"latents": torch.randn(2, dimensions.latent_channels, 16, 24)}
    return last


def gate_cases(library: nn.Module, component: Component, dimensions: Dimensions) -> list[GateCase]:
    """What a library's unmodified float32 module answers on the gate's inputs."""
    cases = []
    for inputs in gate_inputs(component, dimensions):
        output = library_answer(component, library, inputs).numpy()
        if not np.isfinite(output).all():
            raise ParityError(
                f"the torch module of {component} itself gives NaN or infinity; check its weights"
            )
        cases.append(GateCase(inputs, output))
    return cases


def measured_parity(
    onnx_path: Path, component: Component, cases: list[GateCase], bound: float
) -> Parity:
    """Run a graph in ONNX Runtime on the gate's inputs; raises ParityError beyond the bound."""
    engine = OnnxRuntimeEngine(component, onnx_path)
    output_name = CONTRACTS[component].outputs[0].name
    distances: list[float] = []
    try:
        for case in cases:
            buffers = {
                name: np.ascontiguousarray(value.numpy().astype(engine.dtypes[name]))
                for name, value in case.inputs.items()
            }
            output = np.empty(case.output.shape, engine.dtypes[output_name])
            engine.bind(buffers | {output_name: output})
            engine.enqueue()
            if not np.isfinite(output).all():
                raise ParityError(f"{component}: {onnx_path.name} produces NaN or infinity")
            distances.append(relative_l2(output.astype(np.float32), case.output))
    finally:
        engine.close()
    worst = farthest(distances)
    if not worst <= bound:
        raise ParityError(
            f"{component}: {onnx_path.name} is {worst:.2e} from its torch module (relative L2), "
            f"the bound is {bound:.0e}; export in single precision with --fp32 to tell rounding "
            "from a defect"
        )
    return Parity(relative_l2=worst, bound=bound, cases=len(cases))
