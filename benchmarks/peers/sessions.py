"""Peers that run exported U-Nets: ONNX Runtime and OpenVINO, without this toolkit's graph work.

The graphs are what torch.onnx.export makes of diffusers' U-Net: latents repeated for each guidance
pass, static shapes. This module imports no torch: a peer's memory is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.memory import peak_rss_nbytes
from benchmarks.peers.work import (
    SDM_PASSES,
    TDM_PASSES,
    Arrays,
    TimedRun,
    Work,
    load_arrays,
    rows_of,
    save_arrays,
)
from engines.contract import Component
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule
from runtime.method.guidance import Guided, guided
from runtime.method.saliency import fused_by_saliency
from runtime.method.schedule import HISTORY_SLOTS, Column, Stage, updated_latents

Float32Array = npt.NDArray[np.float32]
# sample, timestep, encoder_hidden_states -> noise prediction, all float32
Predict = Callable[[Float32Array, Float32Array, Float32Array], Float32Array]

_GUIDES = {
    Component.TDM_UNET: (TDM_GUIDE, TDM_PASSES),
    Component.SDM_UNET: (SDM_GUIDES[GuidanceRule.PAPER], SDM_PASSES),
}


def plain_path(folder: Path, component: Component) -> Path:
    """Where a U-Net's plain export lies."""
    return folder / f"{component}.plain.onnx"


def hybrid_path(folder: Path, component: Component) -> Path:
    """Where a U-Net quantized by NNCF lies."""
    return folder / f"{component}.hybrid.xml"


def onnxruntime_session(
    *, work: Work, inputs: Path, folder: Path, threads: int
) -> Callable[..., TimedRun]:
    """ONNX Runtime's CPU provider on the plain graphs, with its default optimizations."""
    import onnxruntime as ort

    def opened(path: Path) -> Predict:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]

        def predict(*arrays: Float32Array) -> Float32Array:
            result: Float32Array = session.run(None, dict(zip(names, arrays, strict=True)))[0]
            return result

        return predict

    return _running(work, load_arrays(inputs), folder, opened)


def openvino_session(
    *, work: Work, inputs: Path, folder: Path, threads: int, precision: str, hybrid: bool = False
) -> Callable[..., TimedRun]:
    """OpenVINO's CPU plugin on the plain graphs. precision: f32 or bf16, its inference hint.

    hybrid: on what NNCF made of them.
    """
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    path_of = hybrid_path if hybrid else plain_path

    def opened(path: Path) -> Predict:
        return openvino_predict(core, core.read_model(path), settings)

    return _running(work, load_arrays(inputs), folder, opened, path_of)


def openvino_predict(core: Any, model: Any, settings: Mapping[str, Any]) -> Predict:
    """Compile a U-Net for the CPU."""
    request = core.compile_model(model, "CPU", dict(settings)).create_infer_request()

    def predict(*arrays: Float32Array) -> Float32Array:
        (result,) = request.infer(list(arrays)).values()
        return np.array(result, np.float32)

    return predict


def _running(
    work: Work,
    inputs: Arrays,
    folder: Path,
    opened: Callable[[Path], Predict],
    path_of: Callable[[Path, Component], Path] = plain_path,
) -> Callable[..., TimedRun]:
    """Open what the work needs; then run it when asked, and save the result where one is named."""
    predictors = {component: opened(path_of(folder, component)) for component in work.unets()}

    def run(result: str | None = None) -> TimedRun:
        start = time.perf_counter()
        arrays = denoised(work, inputs, predictors)
        ms = (time.perf_counter() - start) * 1e3
        if result is not None:
            save_arrays(result, arrays)
        return TimedRun(ms=ms, gpu_nbytes=None, peak_rss_nbytes=peak_rss_nbytes())

    return run


def denoised(work: Work, inputs: Arrays, predictors: Mapping[Component, Predict]) -> Arrays:
    """Final latents, and both models' predictions of the last step; formulas of the runtime."""
    latents = inputs["latents"]
    history = np.zeros((HISTORY_SLOTS, *latents.shape), np.float32)
    kept: Arrays = {}
    for step in range(work.count):
        row, stage = inputs["table"][step], work.stage(step)
        answers: list[Guided] = []
        for component, runs in (
            (Component.TDM_UNET, stage is not Stage.SUBJECT),
            (Component.SDM_UNET, stage is not Stage.SCENE),
        ):
            if runs:
                guide, passes = _GUIDES[component]
                rows = np.stack(rows_of(passes, inputs, work.images))
                repeated = np.concatenate([latents] * len(passes))
                timestep = np.array([row[Column.TIMESTEP]], np.float32)
                prediction = predictors[component](repeated, timestep, rows)
                kept[component.value] = prediction
                answers.append(guided(prediction, guide, work.guidance_scale))
        noise = fused_by_saliency(*answers)[0] if len(answers) == 2 else answers[0].noise
        latents = updated_latents(latents, noise, history, row)
    return {"latents": latents, **kept}
