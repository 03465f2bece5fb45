"""Peers: the same answer from each, and no speed for who gives another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from benchmarks.harness.backends import opened_backend
from benchmarks.harness.options import SourceName
from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.harness.reference_check import agreement
from benchmarks.harness.worker import Worker, WorkerError, path_of
from benchmarks.measures import peers as measures
from benchmarks.measures.peers import PeersOptions, chosen_peers
from benchmarks.peers import registry
from benchmarks.peers.comparison import BOUND, Comparison
from benchmarks.peers.in_torch import ReleasedLoop, diffusers_pipeline, released
from benchmarks.peers.ours import bundle_backend
from benchmarks.peers.registry import Peer
from benchmarks.peers.sessions import Predict, denoised
from benchmarks.peers.setup import Setup
from benchmarks.peers.work import Arrays, TimedRun, WorkKind, load_arrays, rows_of, work_of
from benchmarks.schema.facts import Agreement
from benchmarks.schema.peers import ComparedPeer, Device, PeersRecord, UnmeasuredPeer
from benchmarks.schema.record import Status
from benchmarks.schema.results import records_of, recover
from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.contract import NOISE_PREDICTORS, Component
from engines.engine import HostPrecision
from engines.errors import ProviderUnavailableError
from engines.gate import relative_l2
from engines.guides import Pass
from export.source import ModelSource
from runtime.method.schedule import Stage
from tests.benchmarks.peers.echo import echoing
from tests.doubles.small_quantized import ERROR, add_quantized
from tests.paths import GOLDEN

SOURCE = SourceName(
    parts={
        "base": str(GOLDEN / "base"),
        "tdm": str(GOLDEN / "TDM"),
        "sdm": str(GOLDEN / "SDM"),
        "image_encoder": str(GOLDEN / "image_encoder"),
    }
)


@pytest.fixture(scope="module")
def source() -> ModelSource:
    return SOURCE.opened()


def setup_of(kind: WorkKind, bundle: Path, folder: Path, steps: int = 3) -> Setup:
    manifest = Bundle.open(bundle).manifest
    return Setup(
        work=work_of(kind, steps=steps, size_px=64, guidance_scale=5.0),
        bundle=bundle,
        source=SOURCE,
        dimensions=manifest.dimensions,
        noise_schedule=manifest.noise_schedule,
        threads=1,
        folder=folder,
    )


def answers(run: Callable[..., TimedRun], folder: Path) -> Arrays:
    path = folder / "answer.npz"
    assert run(result=str(path)).ms > 0
    return load_arrays(path)


@pytest.mark.parametrize("kind", list(WorkKind))
def test_the_bundle_and_eager_pytorch_do_the_same_work(
    kind: WorkKind, golden_bundle: Path, tmp_path: Path
) -> None:
    setup = setup_of(kind, golden_bundle, tmp_path)
    setup.prepare()
    common: dict[str, Any] = {
        "work": setup.work, "inputs": tmp_path / "inputs.npz", "source": SOURCE, "threads": 1,
    }  # fmt: skip
    torch_peer: dict[str, Any] = {"device": "cpu", "dtype": "fp32"}
    eager = answers(released(compiled=False, **torch_peer, **common), tmp_path)
    ours = answers(
        bundle_backend(provider="onnxruntime-cpu", bundle=golden_bundle, **common), tmp_path
    )
    for name in set(ours) & set(eager):
        # fp32 on both sides, guidance 5, up to three steps: 2e-6 seen.
        agreement(name, ours[name], eager[name], 1e-4)
    assert "latents" in ours
    if kind is WorkKind.STEP:
        assert {each.value for each in NOISE_PREDICTORS} <= set(ours)
    if kind is WorkKind.SCENE:
        theirs = answers(diffusers_pipeline(**torch_peer, **common), tmp_path)
        agreement("diffusers", theirs["latents"], eager["latents"], 1e-4)


def test_the_session_peers_loop_is_the_released_algorithm(
    source: ModelSource, golden_bundle: Path, tmp_path: Path
) -> None:
    setup = setup_of(WorkKind.TRAJECTORY, golden_bundle, tmp_path)
    setup.prepare()
    inputs = load_arrays(tmp_path / "inputs.npz")
    loop = ReleasedLoop(setup.work, source, torch.device("cpu"), torch.float32)
    loop.take(inputs)

    def predictor(component: Component) -> Predict:
        def predict(sample: Any, timestep: Any, embeds: Any) -> Any:
            tensors = (torch.from_numpy(array) for array in (sample, timestep[0:1], embeds))
            latents, time, rows = tensors
            unet = loop.unets[component]
            return unet(latents, time, encoder_hidden_states=rows, return_dict=False)[0].numpy()

        return predict

    with torch.inference_mode():
        expected = loop.run()["latents"].numpy()
        predictors = {component: predictor(component) for component in NOISE_PREDICTORS}
        found = denoised(setup.work, inputs, predictors)["latents"]
    # The same float32 predictions; only the order of a few additions differs.
    agreement("session loop", found, expected, 1e-4)


def test_rows_are_pass_major() -> None:
    inputs = {"null": "n", "text": "t", "augmented": "a"}
    passes = (Pass.NULL, Pass.TEXT, Pass.AUGMENTED)
    assert rows_of(passes, inputs, 2) == ["n", "n", "t", "t", "a", "a"]


def test_works_have_their_stages() -> None:
    step, scene, whole = (
        work_of(kind, steps=10, size_px=64, guidance_scale=5.0)
        for kind in (WorkKind.STEP, WorkKind.SCENE, WorkKind.TRAJECTORY)
    )
    assert (step.count, step.stage(0), step.needs_sdm()) == (1, Stage.FUSION, True)
    assert {scene.stage(i) for i in range(scene.count)} == {Stage.SCENE}
    assert not scene.needs_sdm()
    stages = [whole.stage(i) for i in range(whole.count)]
    assert [stages.count(stage) for stage in Stage] == [3, 3, 4]


def test_another_picture_is_no_agreement() -> None:
    expected = np.ones((1, 4, 8, 8), np.float32)
    assert agreement("peer", expected * 1.01, expected, 2e-2).relative_l2 == pytest.approx(1e-2)
    for wrong in (expected * 1.03, expected * np.nan, expected[:, :2]):
        with pytest.raises(ReferenceMismatchError, match="peer"):
            agreement("peer", wrong, expected, 2e-2)


def test_a_worker_answers_line_by_line_whatever_is_printed() -> None:
    with Worker(echoing, TimedRun, {"factor": 2.0}, threads=3) as worker:
        assert worker.started.load_s >= 0
        assert worker.ask(say=7).peak_rss_nbytes == 7
        answer = worker.ask()
    assert (answer.ms, answer.peak_rss_nbytes) == (2.0, 0)


def test_a_worker_gets_its_arguments_as_the_types_that_its_function_names() -> None:
    with pytest.raises(WorkerError, match="exit code"):
        Worker(echoing, TimedRun, {"factor": "two"})


def test_a_workers_memory_is_its_own_not_its_parents() -> None:
    # The worker's own imports take less than a tenth of this.
    ballast = np.ones(2**29, np.uint8)
    with Worker(echoing, TimedRun, {"factor": 1.0}) as worker:
        assert 2**20 < worker.started.peak_rss_nbytes < ballast.nbytes


def test_a_worker_that_cannot_run_here_says_so() -> None:
    for fails, reason in (("here", "not on this machine"), ("package", "fancy")):
        with pytest.raises(ProviderUnavailableError, match=reason):
            Worker(echoing, TimedRun, {"factor": 1.0, "fails": fails})


def test_a_module_of_our_own_that_is_missing_is_a_failure_not_a_skip() -> None:
    with pytest.raises(WorkerError, match="exit code 1"):
        Worker(echoing, TimedRun, {"factor": 1.0, "fails": "own module"})


def test_a_worker_that_dies_is_an_error_not_a_hang() -> None:
    with pytest.raises(WorkerError, match="exit code"):
        Worker("benchmarks.analysis.stats:summary", TimedRun, {"samples": []})


def test_what_is_measured_in_a_process_of_its_own_loads_no_torch() -> None:
    peers = ("ours", "sessions", "genai")
    modules = ", ".join(f"benchmarks.peers.{name}" for name in peers)
    modules += ", benchmarks.pictures.start_up"
    code = f"import sys, {modules}; print([m for m in ('torch', 'onnx') if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.strip() == "[]", finished.stderr


class _Check:
    """Finds that whoever is called wrong is wrong."""

    def agreement(self, name: str, worker: Worker[TimedRun], bound: float) -> Agreement:
        if name == "wrong":
            raise ReferenceMismatchError("wrong is 0.5 from the reference")
        return Agreement(0.0, bound)


@pytest.fixture(scope="module")
def comparison(
    golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Comparison]:
    folder = tmp_path_factory.mktemp("comparison")
    setup = setup_of(WorkKind.STEP, golden_bundle, folder, steps=50)
    check: Any = _Check()
    with setup.started(echo("ours", factor=2.0)) as worker:
        yield Comparison(setup, "ours", worker, check, rounds=4, eight_bit_bound=0.25, settle_s=0.0)


def echo(name: str, *, isa: str | None = None, eight_bit: bool = False, **arguments: Any) -> Peer:
    return Peer(
        name=name, function=path_of(echoing), arguments=arguments, wants="bundle", isa=isa,
        eight_bit=eight_bit,
    )  # fmt: skip


def test_a_peer_that_agrees_gets_a_ratio_with_its_interval(comparison: Comparison) -> None:
    row = comparison.row(echo("slower", factor=3.0))
    assert isinstance(row, ComparedPeer)
    assert (row.status, row.against, row.threads) == (Status.MEASURED, "ours", 1)
    assert (row.times_as_long, row.low, row.high) == pytest.approx((1.5, 1.5, 1.5))
    own = comparison.own_row(Agreement(0.0, 2e-2))
    assert (own.p50_ms, own.rounds) == (2.0, 4)


def test_a_peer_in_8_bits_may_err_as_much_as_ours_and_no_other(comparison: Comparison) -> None:
    rows = [comparison.row(echo("peer", factor=3.0, eight_bit=each)) for each in (True, False)]
    assert [getattr(row, "bound", None) for row in rows] == [0.25, BOUND]


def test_what_peers_open_is_made_once_for_the_first_of_them(
    golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {
        "exporting": "tdm_unet.plain.onnx", "quantizing": "tdm_unet.hybrid.xml",
        "exporting_for_genai": "genai/model_index.json",
    }  # fmt: skip
    made: list[str] = []

    class Making:
        def __init__(self, function: Any, *_: Any, **__: Any) -> None:
            self.name = getattr(function, "__name__", "a peer")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def ask(self) -> None:
            made.append(self.name)
            path = tmp_path / written[self.name]
            path.parent.mkdir(exist_ok=True)
            path.touch()

    monkeypatch.setattr("benchmarks.peers.setup.Worker", Making)
    setup = setup_of(WorkKind.STEP, golden_bundle, tmp_path)
    by_wish = {peer.wants: peer for peer in registry.peers("cpu", eight_bit=True)}
    for wish in ("source", "bundle", "folder", "folder", "hybrid", "hybrid", "genai", "genai"):
        setup.started(by_wish[wish])
    assert made == ["exporting", "quantizing", "exporting_for_genai"]


@pytest.mark.slow
def test_nncf_makes_8_bit_graphs_of_the_plain_ones(golden_bundle: Path, tmp_path: Path) -> None:
    setup = setup_of(WorkKind.STEP, golden_bundle, tmp_path, steps=50)
    setup.prepare()
    float32, hybrid = (
        peer
        for peer in registry.peers("cpu", eight_bit=True)
        if peer.name in ("OpenVINO fp32", "OpenVINO hybrid int8 (NNCF)")
    )
    assert (hybrid.eight_bit, hybrid.wants) == (True, "hybrid")
    found = []
    for peer in (float32, hybrid):
        with setup.started(peer) as worker:
            worker.ask(result=str(tmp_path / "answer.npz"))
        found.append(load_arrays(tmp_path / "answer.npz"))
    for component in NOISE_PREDICTORS:
        graph = (tmp_path / f"{component}.hybrid.xml").read_text()
        assert 'type="FakeQuantize"' in graph, "activations of convolutions"
        assert 'element_type="u8"' in graph, "weights of matrices"
        # So small a network of random weights errs by 0.19 in 8 bits.
        assert 1e-4 < relative_l2(found[1][component], found[0][component]) < 0.5


class _KilledError(BaseException):
    """What ends a run from outside, in the middle."""


def test_a_run_that_is_killed_keeps_the_rows_it_has(
    comparison: Comparison, golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(*_: Any, **__: Any) -> Iterator[Any]:
        yield comparison.own_row(Agreement(0.0, 2e-2))
        yield comparison.row(echo("slower", factor=3.0))
        raise _KilledError

    monkeypatch.setattr(measures, "compared", compared)
    for name in ("source_name", "source_of", "_setup"):
        monkeypatch.setattr(measures, name, lambda *_: None)
    options = PeersOptions(bundle=golden_bundle, results=tmp_path, work=(WorkKind.STEP,))
    with pytest.raises(_KilledError):
        measures.measured_peers(options)
    assert not records_of("peers", tmp_path)
    # As the next run does first.
    assert recover("peers", tmp_path)
    (record,) = records_of("peers", tmp_path)
    assert isinstance(record, PeersRecord)
    assert [row.peer for row in record.rows] == ["ours", "slower"]


def test_a_peer_that_is_wrong_gets_no_speed(comparison: Comparison) -> None:
    row = comparison.row(echo("wrong", factor=0.1))
    assert isinstance(row, UnmeasuredPeer)
    assert row.status is Status.REFUSED
    assert "0.5 from the reference" in row.reason


def test_a_peer_that_this_machine_cannot_run_is_skipped(comparison: Comparison) -> None:
    without_arithmetic = echo("bf16", factor=1.0, isa="no such flag")
    for peer in (echo("absent", factor=1.0, fails="here"), without_arithmetic):
        row = comparison.row(peer)
        assert isinstance(row, UnmeasuredPeer)
        assert row.status is Status.SKIPPED
        assert row.reason


def test_a_quick_run_compares_with_the_quick_peers_unless_others_are_named() -> None:
    quick = chosen_peers(WorkKind.STEP, PeersOptions(quick=True))
    assert quick and all(peer.quick for peer in quick)
    named = PeersOptions(quick=True, peers=("OpenVINO fp32",))
    assert [peer.name for peer in chosen_peers(WorkKind.STEP, named)] == ["OpenVINO fp32"]
    alone = chosen_peers(WorkKind.STEP, PeersOptions(without_bundle=True))
    assert alone and all(peer.wants != "bundle" for peer in alone)


def test_a_bundle_in_8_bits_is_compared_with_its_own_float32_too(small_copy: Path) -> None:
    plain = PeersOptions()
    assert measures.ours_of(plain).name == "this toolkit"
    assert "this toolkit on OpenVINO" in names_of(plain)
    options = PeersOptions(
        provider="openvino", quantization=Quantization.INT8, precision=HostPrecision.FLOAT32
    )
    ours = measures.ours_of(options)
    assert ours.name == "this toolkit on OpenVINO, int8, float32"
    assert ours.arguments == {
        "provider": "openvino", "quantization": "int8", "precision": "float32",
    }  # fmt: skip
    others = {"this toolkit", "this toolkit on OpenVINO, float32", "OpenVINO hybrid int8 (NNCF)"}
    assert others <= set(names_of(options))
    assert not {*names_of(plain)} & {"OpenVINO hybrid int8 (NNCF)"}
    assert ours.name not in names_of(options)
    add_quantized(small_copy)
    bundle = Bundle.open(small_copy)
    assert measures.bound_of(plain, bundle) == BOUND
    assert measures.bound_of(options, bundle) == BOUND + ERROR.call_bound


def names_of(options: PeersOptions) -> list[str]:
    return [peer.name for peer in chosen_peers(WorkKind.STEP, options)]


@pytest.mark.parametrize("quantization", [None, *Quantization])
def test_what_is_measured_in_8_bits_is_in_8_bits(
    quantization: Quantization | None, small_copy: Path
) -> None:
    add_quantized(small_copy)
    with opened_backend(small_copy, "onnxruntime-cpu", 1, quantization=quantization) as opened:
        assert opened.face_diffuser.quantization == quantization


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_reference_is_float32_and_first_and_names_are_unique(device: Device) -> None:
    found = registry.peers(device)
    assert found[0].arguments["dtype"] == "fp32"
    assert found[0].works == frozenset(WorkKind)
    assert len({peer.name for peer in found}) == len(found)
    for peer in found:
        module, _, function = peer.function.partition(":")
        assert callable(getattr(sys.modules[module], function))
