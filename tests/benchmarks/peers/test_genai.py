"""OpenVINO GenAI as a peer: the reference's latents from a pipeline that draws its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.harness.reference_check import agreement
from benchmarks.measures.peers import PeersOptions, chosen_peers
from benchmarks.peers.comparison import BOUND
from benchmarks.peers.genai import genai_pipeline
from benchmarks.peers.genai_export import exporting_for_genai
from benchmarks.peers.in_torch import released
from benchmarks.peers.registry import Peer, peers
from benchmarks.peers.setup import Setup
from benchmarks.peers.work import Arrays, Work, WorkKind, load_arrays, save_arrays
from engines.errors import NotInstalledError
from tests.benchmarks.peers.test_peers import SOURCE, answers, setup_of

NAME = "OpenVINO GenAI fp32"


@pytest.fixture(scope="module")
def peer() -> Peer:
    (found,) = (each for each in peers("cpu") if each.name == NAME)
    return found


@pytest.fixture(scope="module")
def setup(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    prepared = setup_of(WorkKind.SCENE, golden_bundle, tmp_path_factory.mktemp("genai"))
    prepared.prepare()
    return prepared


@pytest.fixture(scope="module")
def answered(setup: Setup, peer: Peer) -> Iterator[tuple[Arrays, float]]:
    """What the peer's own process answers, and the milliseconds it tells."""
    path = setup.folder / "genai.npz"
    with setup.started(peer) as worker:
        timed = worker.ask(result=str(path))
    yield load_arrays(path), timed.ms


@pytest.fixture(scope="module")
def expected(setup: Setup) -> Any:
    """Final latents of the reference."""
    run = released(
        work=setup.work, inputs=inputs_of(setup), source=SOURCE, device="cpu", dtype="fp32",
        compiled=False, threads=1,
    )  # fmt: skip
    return answers(run, setup.folder)["latents"]


def inputs_of(setup: Setup) -> Path:
    return setup.folder / "inputs.npz"


def drawn(setup: Setup, work: Work, inputs: Path, folder: Path) -> Any:
    run = genai_pipeline(work=work, inputs=inputs, folder=setup.folder / "genai", threads=1)
    return answers(run, folder)["latents"]


@pytest.mark.slow
def test_genai_draws_the_references_latents(
    answered: tuple[Arrays, float], expected: Any, setup: Setup
) -> None:
    arrays, ms = answered
    # fp32 on both sides, guidance 5, three steps.
    agreement(NAME, arrays["latents"], expected, 1e-4)
    assert ms > 0
    # Nothing else takes the words and the folder of GenAI's.
    assert (setup.folder / "genai" / "tokenizer" / "openvino_tokenizer.xml").is_file()


@pytest.mark.slow
def test_another_guidance_or_other_latents_would_not_pass(
    answered: tuple[Arrays, float], expected: Any, setup: Setup, tmp_path: Path
) -> None:
    weaker = replace(setup.work, guidance_scale=setup.work.guidance_scale / 2)
    arrays = load_arrays(inputs_of(setup))
    other = np.random.RandomState(1).standard_normal(arrays["latents"].shape)
    save_arrays(tmp_path / "other.npz", arrays | {"latents": other.astype(np.float32)})
    for work, inputs in ((weaker, inputs_of(setup)), (setup.work, tmp_path / "other.npz")):
        found = drawn(setup, work, inputs, tmp_path)
        with pytest.raises(ReferenceMismatchError, match="GenAI"):
            agreement(NAME, found, expected, BOUND)


@pytest.mark.slow
def test_without_trained_betas_genai_would_space_them_otherwise(
    answered: tuple[Arrays, float], expected: Any, setup: Setup, tmp_path: Path
) -> None:
    path = setup.folder / "genai" / "scheduler" / "scheduler_config.json"
    written = path.read_text()
    config = json.loads(written)
    try:
        path.write_text(json.dumps({k: v for k, v in config.items() if k != "trained_betas"}))
        found = drawn(setup, setup.work, inputs_of(setup), tmp_path)
    finally:
        path.write_text(written)
    # Where this agrees, GenAI was mended and the betas need not be written one by one.
    with pytest.raises(ReferenceMismatchError):
        agreement(NAME, found, expected, 1e-4)


def test_genai_takes_part_in_scenes_alone() -> None:
    named = PeersOptions(peers=(NAME,))
    took_part = {kind for kind in WorkKind if chosen_peers(kind, named)}
    assert took_part == {WorkKind.SCENE}


@pytest.mark.parametrize("missing", ["openvino_genai", "openvino_tokenizers"])
def test_without_its_packages_the_peer_is_skipped_with_what_to_type(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(NotInstalledError, match=f"{missing} is not installed") as caught:
        exporting_for_genai(source=SOURCE, folder=tmp_path)
    assert caught.value.fix == 'pip install "face-diffuser[peers]"'
