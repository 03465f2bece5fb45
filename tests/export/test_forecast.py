"""A dry run says what a build would do and takes; --only does a part of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines import commands
from engines.bundle.folder import Bundle
from engines.contract import Component
from export import forecast
from export.build import main
from tests.export.test_build import PARTS


def _document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["--dry-run", "--json", *words]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_a_dry_run_of_a_new_bundle_writes_nothing_and_tells_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "bundle"
    assert main(["--dry-run", *PARTS, "--out", str(out)]) == 0
    assert list(tmp_path.iterdir()) == []
    told = capsys.readouterr().out
    assert f"would export: {', '.join(Component)}\n" in told
    for word in ("tdm: ", "license: ", "disk: ", "memory: about ", "time: about ", "--dry-run"):
        assert word in told
    assert told.count("estimated from two measured builds") == 2, "not given out as measured"


def test_a_dry_run_knows_what_a_bundle_keeps(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_copy / "build" / "fusion_mlp.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in bundle_copy.rglob("*")}
    document = _document(capsys, "--fp32", *PARTS, "--out", str(bundle_copy))
    kept = dict.fromkeys(Component, "keep") | {Component.FUSION_MLP: "export"}
    assert document["components"] == kept
    assert {path: path.stat().st_mtime_ns for path in bundle_copy.rglob("*")} == before


def test_weights_that_are_not_here_are_told_and_not_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def snapshot_download(repository: str, *, local_files_only: bool = False, **_: object) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if not local_files_only:
            fetched.append(repository)
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert main(["--dry-run", "--model", "released", "--out", str(tmp_path / "bundle")]) == 0
    told = capsys.readouterr().out
    assert "is not here; the build downloads it from the hub" in told
    assert "if the weights have Stable Diffusion 1.5's size" in told
    assert fetched == []
    # Half precision of 2,198,517,151 weights and what lies beside them.
    assert "4.41 GB of ONNX models" in told


def test_what_is_estimated_passes_through_both_measured_builds() -> None:
    for point in (forecast._SHIPPED, forecast._FULL_SIZE):
        seconds = forecast._between(
            point.elements,
            (forecast._SHIPPED.elements, forecast._SHIPPED.seconds),
            (forecast._FULL_SIZE.elements, forecast._FULL_SIZE.seconds),
        )
        assert seconds == pytest.approx(point.seconds)
    assert forecast._between(0.0, (1.0, 1.0), (2.0, 5.0)) == 0.0


def test_one_component_alone_is_exported_and_the_bundle_works_as_before(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_copy / "build" / "fusion_mlp.json").unlink()
    (bundle_copy / "build" / "vae_decoder.json").unlink()
    manifest = (bundle_copy / "manifest.json").read_bytes()
    words = ["--fp32", *PARTS, "--only", "fusion_mlp", "--json", "--out", str(bundle_copy)]
    assert main(words) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["published"] is False and list(document["parity"]) == ["fusion_mlp"]
    assert "without --only goes on" in captured.err and "vae_decoder" not in captured.err
    assert (bundle_copy / "manifest.json").read_bytes() == manifest
    assert Bundle.open(bundle_copy).verify() > 0
    (beside,) = (path for path in bundle_copy.parent.iterdir() if path != bundle_copy)
    assert (beside / "build" / "fusion_mlp.json").is_file(), "what the next build keeps"
    # What it tells to type finishes the whole.
    assert "--only" not in commands.rebuilt(beside) and "--fp32" in commands.rebuilt(beside)


def test_a_name_that_is_no_component_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--only", "vae-decodr"])
    assert exited.value.code == 2
    assert 'did you mean "vae_decoder"?' in capsys.readouterr().err
