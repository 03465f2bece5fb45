"""The plain ONNX export that peers run: diffusers' U-Net as torch.onnx.export leaves it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.model_source import SourceName
from benchmarks.harness.worker import Answer, Message
from benchmarks.peers.sessions import plain_path
from benchmarks.peers.work import SDM_PASSES, TDM_PASSES, Work, load_arrays
from engines.contract import NOISE_PREDICTORS, Component

# The last opset before ONNX kept attention whole; what most exports in the field carry.
PLAIN_OPSET = 20
_PASSES = {Component.TDM_UNET: len(TDM_PASSES), Component.SDM_UNET: len(SDM_PASSES)}


def exporting(
    *, work: Mapping[str, Any], inputs: str, source: Mapping[str, Any], folder: str
) -> Answer:
    """In a worker, so that the exporter's memory goes with it: export what the work needs."""
    job, arrays, opened = Work.from_json(work), load_arrays(inputs), SourceName(**source).opened()
    for component in NOISE_PREDICTORS if job.needs_sdm() else NOISE_PREDICTORS[:1]:
        rows = _PASSES[component] * job.images
        latents, embeds = torch.from_numpy(arrays["latents"]), torch.from_numpy(arrays["text"])
        example = {
            "sample": latents.repeat(_PASSES[component], 1, 1, 1),
            "timestep": torch.zeros(1),
            "encoder_hidden_states": embeds.expand(rows, *embeds.shape).contiguous(),
        }
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _FirstOutput(opened.unet(component)),
                kwargs=example,
                f=str(plain_path(folder, component)),
                dynamo=True,
                opset_version=PLAIN_OPSET,
                input_names=list(example),
                output_names=["noise_prediction"],
                external_data=True,
            )

    def answer(_: Message) -> dict[str, Any]:
        return {}

    return answer


class _FirstOutput(nn.Module):
    """A U-Net that gives its tensor, not a tuple around it."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        prediction: Tensor = self.unet(
            sample, timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False
        )[0]
        return prediction
