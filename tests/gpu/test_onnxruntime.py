"""ONNX Runtime's CUDA provider on a real GPU, with the bundle's own models."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.bundle.folder import Bundle
from engines.gate import PLAN_PIPELINE_BOUNDS, relative_l2
from runtime import FaceDiffuser
from tests.runtime.gpu.drawing import small

pytestmark = pytest.mark.gpu


def test_onnx_runtimes_cuda_provider_draws_what_the_cpu_draws(gpu_bundle: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed; type: pip install -e '.[gpu-test]'")
    # Averaged noises: no pixel can change sides.
    with FaceDiffuser.open(gpu_bundle, provider="onnxruntime-cpu") as host:
        side = {"height": host.native_px, "width": host.native_px}
        request = small(fusion="addition", num_inference_steps=6, **side)
        expected = host.generate(request).array
    bound = PLAN_PIPELINE_BOUNDS[Bundle.open(gpu_bundle).manifest.precision]
    with FaceDiffuser.open(gpu_bundle, provider="onnxruntime-cuda") as opened:
        found = opened.generate(request).array
    assert relative_l2(found, expected) < bound
