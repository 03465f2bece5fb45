"""OpenVINO behind the engine protocol, against ONNX Runtime on the same bundles."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import Bundle
from engines.contract import NOISE_PREDICTORS, Component
from engines.engine import Array, Engine, HostPrecision
from engines.errors import BundleCorruptError, ContractError, ProviderUnavailableError
from engines.gate import BFLOAT16_PIPELINE_BOUND, relative_l2
from engines.onnxruntime.cpu import open_on_cpu
from engines.openvino.cpu import OpenVinoEngine, has_bfloat16, open_on_openvino
from runtime import FaceDiffuser, OutputType, Provider, Request
from tests.doubles.small_bundle import half_bundle
from tests.paths import GOLDEN


def prediction(engine: Engine, timestep: float, *, side: int = 16, width: int = 32) -> Array:
    """What a U-Net says of noise at a timestep. side: height of the latents."""
    chance = np.random.RandomState(5)
    buffers = {
        "latents": chance.standard_normal((1, 4, side, 16)).astype(np.float32),
        "timestep": np.array([timestep], np.float32),
        "prompt_embeds": chance.standard_normal((2, 77, width)).astype(np.float32),
        "noise_prediction": np.zeros((2, 4, side, 16), np.float32),
    }
    engine.bind(buffers)
    engine.enqueue()
    return buffers["noise_prediction"]


@pytest.mark.parametrize("component", NOISE_PREDICTORS)
@pytest.mark.parametrize("timestep", [981.0, 501.0, 21.0])
@pytest.mark.parametrize("precision", HostPrecision)
def test_a_unet_keeps_its_timestep_exact(
    component: Component, timestep: float, precision: HostPrecision, golden_bundle: Path
) -> None:
    if precision is HostPrecision.BFLOAT16 and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    bundle = Bundle.open(golden_bundle)
    expected = prediction(open_on_cpu(bundle, component, 1), timestep)
    found = prediction(open_on_openvino(bundle, component, 1, precision), timestep)
    # bfloat16's 8 bits on this tiny random model: 3.7e-2 seen; 2.1e-1 where the timestep's sines
    # are in bfloat16 too.
    in_bfloat16 = precision is HostPrecision.BFLOAT16
    assert relative_l2(found, expected) <= (7e-2 if in_bfloat16 else 1e-4)
    assert (relative_l2(found, expected) > 1e-3) == in_bfloat16


def test_one_engine_takes_every_size(golden_bundle: Path) -> None:
    engine = open_on_openvino(Bundle.open(golden_bundle), Component.TDM_UNET, 1)
    first = prediction(engine, 501.0).copy()
    assert prediction(engine, 501.0, side=24).shape == (2, 4, 24, 16)
    assert np.array_equal(prediction(engine, 501.0), first)


@pytest.mark.parametrize("low_memory", [False, True])
def test_it_draws_what_onnx_runtime_draws(
    golden_bundle: Path,
    low_memory: bool,  # noqa: FBT001
) -> None:
    latents = []
    for provider in (Provider.ONNXRUNTIME_CPU, Provider.OPENVINO):
        with FaceDiffuser.open(
            golden_bundle, provider=provider, threads=1, low_memory=low_memory
        ) as backend:
            assert backend.provider == provider
            latents.append(backend.generate(small()).array)
    assert 0 < relative_l2(latents[1], latents[0]) <= BFLOAT16_PIPELINE_BOUND


def small(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "prompt": "a man <|image|> reading", "references": [GOLDEN / "refs" / "man1.png"],
        "num_inference_steps": 3, "start_merge_step": 0, "final_step": 1, "seed": 5,
        "height": 128, "width": 64, "output_type": OutputType.LATENT,
    }  # fmt: skip
    return Request(**(fields | changes))


def test_a_half_precision_bundle_takes_and_gives_single_precision(tmp_path: Path) -> None:
    bundle = Bundle.open(half_bundle(tmp_path / "bundle"))
    engines = [opened(bundle, Component.TDM_UNET, 1) for opened in (open_on_cpu, open_on_openvino)]
    assert engines[0].dtypes == engines[1].dtypes
    expected, found = (prediction(engine, 501.0, width=8) for engine in engines)
    assert relative_l2(found, expected) <= 2e-2


def test_encoders_and_decoder_compute_in_single_precision(golden_bundle: Path) -> None:
    with (
        FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as exact,
        FaceDiffuser.open(golden_bundle, provider="openvino", threads=1) as backend,
    ):
        photo = GOLDEN / "refs" / "man1.png"
        expected, found = (each.encode_reference(photo).embeds for each in (exact, backend))
    assert relative_l2(found, expected) <= 1e-4


def test_buffers_that_do_not_fit_are_refused(golden_bundle: Path) -> None:
    engine = open_on_openvino(Bundle.open(golden_bundle), Component.TDM_UNET, 1)
    with pytest.raises(ContractError, match="was given buffers"):
        engine.bind({"latents": np.zeros((1, 4, 8, 8), np.float32)})
    buffers: dict[str, Array] = {
        "latents": np.zeros((1, 4, 8, 8), np.float64),
        "timestep": np.zeros(1, np.float32),
        "prompt_embeds": np.zeros((2, 77, 32), np.float32),
        "noise_prediction": np.zeros((2, 4, 8, 8), np.float32),
    }
    with pytest.raises(ContractError, match="takes latents as contiguous float32, got float64"):
        engine.bind(buffers)


def test_a_damaged_graph_is_named(golden_bundle: Path, tmp_path: Path) -> None:
    name = Bundle.open(golden_bundle).component(Component.FUSION_MLP).onnx
    path = Path(shutil.copy(golden_bundle / name, tmp_path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BundleCorruptError, match=r"cannot load .*python -m engines\.verify"):
        OpenVinoEngine(Component.FUSION_MLP, path)


def test_without_openvino_its_installation_is_named(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderUnavailableError, match=r'pip install "face-diffuser\[openvino\]"'):
        FaceDiffuser.open(golden_bundle, provider="openvino")
