"""Bundles that many tests share, built once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engines.manifest import Precision
from export.build import build_bundle
from export.checkpoints import Checkpoint, Sources
from export.component import BuildOptions

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden vectors' tiny checkpoint as an fp32 bundle."""
    parts = {name: str(GOLDEN / folder) for name, folder in (
        ("base", "base"), ("tdm", "TDM"), ("sdm", "SDM"), ("image_encoder", "image_encoder"),
    )}  # fmt: skip
    bundle = tmp_path_factory.mktemp("golden") / "bundle"
    source = Checkpoint.open(Sources(**parts))
    build_bundle(bundle, source, BuildOptions(precision=Precision.FP32), print, architectures=())
    return bundle


@pytest.fixture
def bundle_copy(golden_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))
