"""The 8-bit peer: OpenVINO's plain graphs quantized by NNCF as optimum-intel does for diffusion.

Its hybrid quantization (optimum-intel 2.2, `OVQuantizationMethod.HYBRID`): weights of matrices in
INT8, a scale for each channel, and activations of everything else, convolutions above all, in INT8
as well. The calls that it calibrates on are those that it will be measured on, which no user has:
its error is the least that it can be. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.packages import peers_package
from benchmarks.peers.sessions import (
    Predict,
    denoised,
    hybrid_path,
    openvino_predict,
    plain_path,
)
from benchmarks.peers.work import Exported, Work, load_arrays


def quantizing(*, work: Work, inputs: Path, folder: Path) -> Callable[[], Exported]:
    """In a worker: quantize the plain exports that the work needs when asked.

    Raises NotInstalledError.
    """
    nncf, ov = peers_package("nncf"), peers_package("openvino")
    core = ov.Core()

    def quantize() -> Exported:
        components, arrays = work.unets(), load_arrays(inputs)
        seen: dict[str, list[list[Any]]] = {component: [] for component in components}

        def recorded(name: str, predict: Predict) -> Predict:
            def call(*given: Any) -> Any:
                seen[name].append([each.copy() for each in given])
                return predict(*given)

            return call

        models = {each: core.read_model(plain_path(folder, each)) for each in components}
        predictors = {
            each: recorded(each, openvino_predict(core, model, {}))
            for each, model in models.items()
        }
        denoised(work, arrays, predictors)
        predictors.clear()
        for component, model in models.items():
            weights_alone = nncf.IgnoredScope(types=["Convolution"])
            compressed = nncf.compress_weights(
                model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=weights_alone
            )
            without_smoothing = nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
            )
            calls = seen[component]
            made = nncf.quantize(
                compressed,
                nncf.Dataset(calls),
                subset_size=len(calls),
                ignored_scope=nncf.IgnoredScope(names=_with_weights(compressed)),
                advanced_parameters=without_smoothing,
            )
            ov.save_model(made, hybrid_path(folder, component), compress_to_fp16=False)
        return Exported(paths=tuple(hybrid_path(folder, each) for each in models))

    return quantize


def _with_weights(model: Any) -> list[str]:
    """Names of the products one side of which is a constant, however it is stored."""
    return [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "MatMul"
        and any(_is_constant(node.input_value(port).get_node()) for port in (0, 1))
    ]


def _is_constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
