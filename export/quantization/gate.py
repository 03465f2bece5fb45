"""Whether a U-Net in 8 bits is close enough, on real calls that calibration never saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.bundle.quantization import QuantizationError
from engines.contract import CONTRACTS, Component
from engines.gate import relative_l2
from export.quantization.calls import GUIDANCE_SCALE, Call, Float32Array, opened

# Measured on the shipped model, worst call of a trajectory: 0.007 to 0.010 (TDM) and 0.014 to 0.020
# (SDM) with the last two up blocks in half, where pictures move by less than 0.01 of their range
# in the mean; 0.019 and 0.069 and more with everything in 8 bits, where they move by more. The
# bounds lie between. Guidance multiplies by 3 to 5: 0.02 to 0.04 of the guided noise in the mean
# against 0.06 to 0.22.
_CALL_BOUNDS = {Component.TDM_UNET: 1.5e-2, Component.SDM_UNET: 2.5e-2}
_GUIDED_BOUND = 5e-2


def measured_error(cpu_onnx: Path, calls: Sequence[Call]) -> QuantizationError:
    """Compare a quantized graph's answers with those that the calls had.

    calls: of one U-Net; of both where they have the same weights, and then the wider bound holds.
    """
    session = opened(cpu_onnx)
    components = {call.component for call in calls}
    output = CONTRACTS[Component.TDM_UNET].outputs[0].name
    of_calls, of_guided = [], []
    for call in calls:
        (found,) = session.run([output], dict(call.inputs))
        of_calls.append(relative_l2(found, call.prediction))
        of_guided.append(relative_l2(_guided(call, found), _guided(call, call.prediction)))
    return QuantizationError(
        call=max(of_calls),
        call_bound=max(_CALL_BOUNDS[component] for component in components),
        guided=float(np.mean(of_guided)),
        guided_bound=_GUIDED_BOUND,
        calls=len(calls),
    )


def holds(error: QuantizationError) -> bool:
    """Whether both bounds hold; what is no number holds none."""
    return error.call <= error.call_bound and error.guided <= error.guided_bound


def _guided(call: Call, prediction: Float32Array) -> Float32Array:
    """The guided noise of a call's passes: null, [text,] target."""
    parts = np.split(prediction, len(call.inputs["prompt_embeds"]))
    guided: Float32Array = parts[0] + GUIDANCE_SCALE * (parts[-1] - parts[-2])
    return guided
