"""The plain ONNX export that peers run: diffusers' U-Net as torch.onnx.export leaves it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness.options import SourceName
from benchmarks.peers.sessions import plain_path
from benchmarks.peers.work import SDM_PASSES, TDM_PASSES, Arrays, Exported, Work, load_arrays
from engines.contract import Component

# The last opset before ONNX kept attention whole; what most exports in the field carry.
PLAIN_OPSET = 20
_PASSES = {Component.TDM_UNET: len(TDM_PASSES), Component.SDM_UNET: len(SDM_PASSES)}


def exporting(
    *, work: Work, inputs: Path, source: SourceName, folder: Path
) -> Callable[[], Exported]:
    """In a worker: export what the work needs when asked."""
    arrays, opened = load_arrays(inputs), source.opened()

    def export() -> Exported:
        paths = {component: plain_path(folder, component) for component in work.unets()}
        for component, path in paths.items():
            _export_plainly(opened.unet(component), _example(component, work, arrays), path)
        return Exported(paths=tuple(paths.values()))

    return export


def _example(component: Component, work: Work, arrays: Arrays) -> dict[str, Tensor]:
    """Inputs of the shapes that the work's calls have."""
    rows = _PASSES[component] * work.images
    latents, embeds = torch.from_numpy(arrays["latents"]), torch.from_numpy(arrays["text"])
    return {
        "sample": latents.repeat(_PASSES[component], 1, 1, 1),
        "timestep": torch.zeros(1),
        "encoder_hidden_states": embeds.expand(rows, *embeds.shape).contiguous(),
    }


def _export_plainly(unet: nn.Module, example: dict[str, Tensor], path: Path) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            FirstOutput(unet),
            kwargs=example,
            f=str(path),
            dynamo=True,
            opset_version=PLAIN_OPSET,
            input_names=list(example),
            output_names=["noise_prediction"],
            external_data=True,
        )


class FirstOutput(nn.Module):
    """A U-Net that gives its tensor, not a tuple around it."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        prediction: Tensor = self.unet(
            sample, timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False
        )[0]
        return prediction
