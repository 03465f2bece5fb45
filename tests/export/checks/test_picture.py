"""The whole pipeline's latents beside PyTorch's: what is published, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.bundle.candidate import FINAL_STEP, START_MERGE_STEP, STEPS, CheckRequest
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Manifest
from engines.errors import BuildError
from engines.gate import PIPELINE_BOUNDS
from engines.guides import GuidanceRule
from engines.system.processes import Ended
from export.checks import picture
from export.checks.parity import ParityError

BOUND = 2e-2
LATENTS = np.ones((1, 4, 16, 16), np.float32)


class Pipeline:
    """PyTorch's answer, and how it was asked."""

    rounded_to_half: bool | None = None
    asked: Any = None

    def __init__(self, source: object, size: object, *, rounded_to_half: bool) -> None:
        Pipeline.rounded_to_half = rounded_to_half

    def final_latents(self, request: Any) -> torch.Tensor:
        Pipeline.asked = request
        return torch.from_numpy(LATENTS)


@pytest.fixture
def manifest(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setattr(picture, "TorchPipeline", Pipeline)
    return Bundle.open(small_bundle).manifest


def _parity(manifest: Manifest, folder: Path, found: Any, code: int = 0) -> dict[str, float]:
    said: list[str] = []

    def draw(*words: object) -> Ended:
        said.extend(map(str, words))
        np.save(said[said.index("--out") + 1], found)
        return Ended(code=code, printed="", last_words="no memory")

    source: Any = None
    parity = picture.pipeline_parity(draw, folder, source, manifest)
    assert "--low-memory" in said
    # Never what a measurement on this machine would choose.
    assert said[said.index("--provider") + 1] == "onnxruntime-cpu"
    given = np.load(said[said.index("--latents") + 1])
    np.testing.assert_array_equal(given, Pipeline.asked.latents.numpy())
    return parity


def test_a_pipeline_within_its_bound_is_told_with_its_distance(
    manifest: Manifest, tmp_path: Path
) -> None:
    assert PIPELINE_BOUNDS[manifest.precision] == BOUND
    parity = _parity(manifest, tmp_path, LATENTS * np.float32(1 + 0.9 * BOUND))
    assert parity["relative_l2"] == pytest.approx(0.9 * BOUND, rel=1e-3)
    assert parity["bound"] == BOUND
    assert Pipeline.rounded_to_half
    assert parity["steps"] == Pipeline.asked.num_inference_steps


@pytest.mark.parametrize("factor", [1 + 1.1 * BOUND, 1 - 1.1 * BOUND, np.nan, np.inf])
def test_a_pipeline_that_drifts_or_is_not_finite_is_refused(
    factor: float, manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match="from PyTorch's latents"):
        _parity(manifest, tmp_path, LATENTS * np.float32(factor))


def test_a_bundle_that_does_not_draw_says_why(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot draw from this bundle: no memory"):
        _parity(manifest, tmp_path, LATENTS, code=1)


def test_the_check_has_every_stage_and_the_same_noise_each_time() -> None:
    request = CheckRequest(latent_channels=4, side_px=128, guidance_rule=GuidanceRule.PAPER)
    assert request.latents().shape == (1, 4, 16, 16)
    np.testing.assert_array_equal(request.latents(), request.latents())
    assert 0 <= START_MERGE_STEP < FINAL_STEP < STEPS - 1
