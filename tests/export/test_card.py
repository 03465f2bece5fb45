"""The model card says what the manifest says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engines.bundle.folder import Bundle
from export.build import main
from export.card import CARD_NAME, model_card
from tests.export.test_build import PARTS


def test_the_card_tells_precision_size_parity_sources_and_licenses(golden_bundle: Path) -> None:
    manifest = Bundle.open(golden_bundle).manifest
    card = model_card(manifest)
    assert card.startswith("---\nlicense: other\n")
    assert f"# Face-Diffuser bundle, fp32, {manifest.dimensions.native_px} px" in card
    for component, record in manifest.components.items():
        assert f"| {component} | `{record.onnx}` |" in card
    for name, digest in manifest.sources.items():
        assert f"| `{name}` | `{digest}` |" in card
    assert all(line in card for line in manifest.licenses)
    assert f"within {manifest.pipeline_parity['relative_l2']:.1e}" in card
    assert "Not all of these are known" in card
    known = replace(manifest, licenses=["a: MIT"], pipeline_parity={})
    assert "All of these hold" in model_card(known)
    assert "was not compared" in model_card(known)


def test_a_build_writes_its_card_and_lists_it(bundle_copy: Path) -> None:
    (bundle_copy / CARD_NAME).unlink(missing_ok=True)
    assert main(["--fp32", *PARTS, "--out", str(bundle_copy)]) == 0
    bundle = Bundle.open(bundle_copy)
    assert CARD_NAME in bundle.manifest.files
    assert (bundle_copy / CARD_NAME).read_text() == model_card(bundle.manifest)
    assert bundle.verify() > 0
