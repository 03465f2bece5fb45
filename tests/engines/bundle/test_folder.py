"""A bundle opens whole or not at all, and says what fixes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines import commands, verify
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, Component
from engines.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    BundleSchemaError,
    ConstantOutputError,
    NonFiniteError,
    ProviderUnavailableError,
)
from engines.onnxruntime import cpu as onnxruntime_engine
from runtime import FaceDiffuser, Request
from runtime.host.backend import HostBackend
from runtime.host.pool import EnginePool
from tests.paths import GOLDEN, ROOT

REBUILD = "python -m export.build"


def test_a_whole_bundle_verifies(golden_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(golden_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True


def test_a_missing_bundle_names_the_build_command(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BundleNotFoundError, match=REBUILD):
            Bundle.open(path)


@pytest.mark.parametrize("name", ["onnx/tdm_unet.onnx", "tokenizer/tokenizer.json", "preview.png"])
def test_a_truncated_file_is_named(name: str, bundle_copy: Path) -> None:
    path = bundle_copy / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleCorruptError, match=f"{name}.*bytes.*{REBUILD}"):
        Bundle.open(bundle_copy)


def test_an_altered_file_is_named_when_it_is_hashed(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_copy / "onnx" / "vae_decoder.data"
    path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", path.stat().st_size - 1)
    opened = Bundle.open(small_copy)
    with pytest.raises(BundleCorruptError, match=rf"vae_decoder\.data was altered.*{REBUILD}"):
        opened.verify()
    with pytest.raises(BundleCorruptError, match=r"vae_decoder\.data was altered"):
        opened.verify_component(Component.VAE_DECODER)
    opened.verify_component(Component.TDM_UNET)
    assert verify.main([str(small_copy)]) == 1
    assert "vae_decoder.data was altered" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", path.stat().st_size)
    with pytest.raises(BundleCorruptError, match=r"vae_decoder\.data was altered"):
        Bundle.open(small_copy)


def test_files_up_to_4_mib_are_hashed_whenever_a_bundle_opens() -> None:
    code = "from engines.bundle import folder; print(folder.CHEAP_NBYTES)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert int(told.stdout) == 4 * 2**20


def test_a_missing_file_is_named(bundle_copy: Path) -> None:
    (bundle_copy / "onnx" / "sdm_unet.data").unlink()
    with pytest.raises(BundleCorruptError, match=r"sdm_unet\.data is missing"):
        FaceDiffuser.open(bundle_copy)


def test_a_half_written_bundle_says_that_the_build_resumes(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").unlink()
    with pytest.raises(BundleCorruptError, match="unfinished build"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 4}', "\x00\x01"])
def test_a_broken_manifest_is_named(text: str, bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").write_text(text)
    with pytest.raises(BundleCorruptError, match="manifest"):
        Bundle.open(bundle_copy)


def test_a_manifest_of_a_newer_schema_is_refused(bundle_copy: Path) -> None:
    path = bundle_copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(BundleSchemaError, match="schema 99, this toolkit reads 4"):
        Bundle.open(bundle_copy)


def test_verify_exits_with_1_and_the_reason_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main([str(tmp_path)]) == 1
    assert "is not a bundle" in capsys.readouterr().err.splitlines()[-1]


def test_a_provider_that_is_not_installed_is_named(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderUnavailableError, match="pip install"):
        FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu")
    with FaceDiffuser.open(golden_bundle) as face_diffuser:
        assert face_diffuser.provider == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderUnavailableError, match=r"nothing here can run .*pip install"):
        FaceDiffuser.open(golden_bundle)


def test_a_non_finite_output_names_engine_step_and_timestep(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = onnxruntime_engine.OnnxRuntimeEngine.enqueue

    def poisoned(engine: onnxruntime_engine.OnnxRuntimeEngine) -> None:
        enqueue(engine)
        if engine.component == "sdm_unet":
            engine._buffers["noise_prediction"][...] = float("nan")

    monkeypatch.setattr(onnxruntime_engine.OnnxRuntimeEngine, "enqueue", poisoned)
    reference = GOLDEN / "refs" / "man1.png"
    bundle = Bundle.open(golden_bundle)
    with FaceDiffuser(bundle, HostBackend(EnginePool(bundle))) as face_diffuser:
        request = Request(
            prompt="a man <|image|>", references=[reference], num_inference_steps=4, height=64,
            width=64, alpha=0.5, beta=0.5,
        )  # fmt: skip
        with pytest.raises(NonFiniteError, match=r"sdm_unet .* at step 2, timestep 251"):
            face_diffuser.generate(request)


def test_an_unfinished_build_is_finished_by_its_own_words(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from another folder: paths become absolute, with the weight of a LoRA behind them."""
    (bundle_copy / "manifest.json").unlink()
    monkeypatch.chdir(tmp_path)
    Path("style.safetensors").touch()
    words = [
        "--fp32",
        "--tdm",
        str(GOLDEN / "TDM"),
        "--out",
        "elsewhere",
        "--json",
        "--base",
        "a/b",
    ]
    loras = ["--tdm-lora", "style.safetensors:0.8", "--sdm-lora=style.safetensors"]
    commands.remember_build(bundle_copy, [*words, *loras])
    with pytest.raises(BundleCorruptError, match="unfinished build") as error:
        Bundle.open(bundle_copy)
    assert error.value.fix == (
        f"{REBUILD} --fp32 --tdm {GOLDEN / 'TDM'} --base a/b "
        f"--tdm-lora {tmp_path}/style.safetensors:0.8 "
        f"--sdm-lora={tmp_path}/style.safetensors --out {bundle_copy}"
    )


@pytest.mark.parametrize(
    "change",
    [
        ("noise_schedule", "beta_start", -0.5),
        ("noise_schedule", "beta_schedule", "nonsense"),
        ("noise_schedule", "set_alpha_to_one", [1]),
        ("noise_schedule", "steps_offset", 2),
        ("noise_schedule", "num_train_timesteps", 10**9),
        ("dimensions", "image_mean", [0.5, 0.5]),
        ("dimensions", "image_std", [0, 0.5, 0.5]),
        ("dimensions", "native_px", 1024),
        ("components", "tdm_unet", "cpu_onnx", "../stranger/tdm_unet.cpu.onnx"),
        ("components", "tdm_unet", "cpu_onnx", "/etc/passwd"),
        ("components", "tdm_unet", "cpu_onnx", "onnx/sdm_unet.cpu.onnx"),
        ("components", "tdm_unet", "files", "/etc/passwd", {"nbytes": 1, "sha256": "0" * 64}),
        ("licenses", []),
    ],
    ids=lambda change: "-".join(map(str, change[:-1])),
)
def test_an_altered_manifest_does_not_open(change: tuple[Any, ...], bundle_copy: Path) -> None:
    path = bundle_copy / "manifest.json"
    document = json.loads(path.read_text())
    *parents, key, value = change
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(BundleCorruptError, match="incomplete or altered"):
        Bundle.open(bundle_copy)


def test_deep_nesting_is_no_manifest(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(BundleCorruptError, match="is not a manifest"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("low_memory", [False, True])
def test_weights_too_large_to_hash_at_once_are_hashed_before_use(
    low_memory: bool,  # noqa: FBT001
    bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", 0)
    request = Request(
        prompt="a man <|image|>", references=[GOLDEN / "refs" / "man1.png"],
        num_inference_steps=1, height=64, width=64, alpha=0, beta=1,
    )  # fmt: skip
    weights = bundle_copy / "onnx" / "sdm_unet.data"
    whole = weights.read_bytes()
    with FaceDiffuser.open(bundle_copy, threads=1, low_memory=low_memory) as face_diffuser:
        assert len(face_diffuser.generate(request).images) == 1
        if low_memory:  # it reads the file again
            weights.write_bytes(whole[:-8] + bytes(8))
            with pytest.raises(BundleCorruptError, match=r"sdm_unet\.data was altered"):
                face_diffuser.generate(request)
    weights.write_bytes(bytes(len(whole)))
    with (
        pytest.raises(BundleCorruptError, match=r"sdm_unet\.data was altered"),
        FaceDiffuser.open(bundle_copy, threads=1, low_memory=low_memory) as face_diffuser,
    ):
        face_diffuser.generate(request)


@pytest.mark.parametrize("spoil", ["zero", "nothing"])
@pytest.mark.parametrize("component", ["tdm_unet", "vae_decoder", "text_encoder"])
def test_an_engine_that_computes_nothing_is_noticed(
    component: str, spoil: str, golden_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = onnxruntime_engine.OnnxRuntimeEngine.enqueue

    def idle(engine: onnxruntime_engine.OnnxRuntimeEngine) -> None:
        if engine.component != component:
            enqueue(engine)
        elif spoil == "zero":
            for output in CONTRACTS[engine.component].outputs:
                engine._buffers[output.name][...] = 0

    monkeypatch.setattr(onnxruntime_engine.OnnxRuntimeEngine, "enqueue", idle)
    bundle = Bundle.open(golden_bundle)
    wanted = ConstantOutputError if spoil == "zero" else NonFiniteError
    with FaceDiffuser(bundle, HostBackend(EnginePool(bundle))) as face_diffuser:
        request = Request(
            prompt="a man <|image|>", references=[GOLDEN / "refs" / "man1.png"],
            num_inference_steps=2, height=64, width=64,
        )  # fmt: skip
        with pytest.raises(wanted, match=component):
            face_diffuser.generate(request)
