"""Bundles that many tests share, built once for all workers."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.bundle.manifest import MANIFEST_NAME
from tests.paths import GOLDEN


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep workers from waiting for each other: who starts first builds the bundle that many share,
    while the others run the longest test and all that need no bundle."""
    sharing = {item.path for item in items if "golden_bundle" in getattr(item, "fixturenames", ())}
    first = min(sharing, default=None)

    def turn(item: pytest.Item) -> int:
        if item.path == first:
            return 0
        if item.path.name == "test_readme.py":
            return 1
        return 3 if item.path in sharing else 2

    items.sort(key=turn)


def _no_torch_trace() -> None:
    """torch traces every export as soon as anything listens to this logger, which pytest does: a
    tenth of an export's time."""
    logging.getLogger("torch.__trace").handlers.clear()


pytest_runtest_setup = pytest.hookimpl(tryfirst=True)(_no_torch_trace)
pytest_runtest_call = pytest.hookimpl(tryfirst=True)(_no_torch_trace)


@pytest.fixture(autouse=True)
def no_file_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of tests are small and real ones are not: here too, opening hashes no weights."""
    monkeypatch.setattr("engines.bundle.folder.CHEAP_NBYTES", 0)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A run's own, so that nothing of it outlives the run and nothing older reaches into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def golden_bundle(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The golden vectors' tiny checkpoint as an fp32 bundle, the same for all workers of a run.

    FACE_DIFFUSER_GOLDEN_BUNDLE in the environment names one that was built before.
    """
    if built := os.environ.get("FACE_DIFFUSER_GOLDEN_BUNDLE"):
        return Path(built)
    folder = tmp_path_factory.getbasetemp()
    shared = folder if worker_id == "master" else folder.parent
    bundle = shared / "golden" / "bundle"
    with (shared / "golden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (bundle / MANIFEST_NAME).is_file():
            _build_golden(bundle)
    return bundle


def _build_golden(bundle: Path) -> None:
    # Imported here: tests on a GPU run where nothing of an export is installed.
    from engines.bundle.manifest import Precision
    from export.build import draw
    from export.bundle import build_bundle
    from export.checkpoint.checkpoint import Checkpoint, Sources
    from export.checks.picture import NOISE_PREVIEW
    from export.options import BuildOptions

    parts = {name: str(GOLDEN / name) for name in ("base", "image_encoder")}
    roles = {name: str(GOLDEN / name.upper()) for name in ("tdm", "sdm")}
    build_bundle(
        bundle,
        Checkpoint.open(Sources(**parts, **roles)),
        BuildOptions(precision=Precision.FP32),
        print,
        architectures=(),
        draw=draw,
        preview=NOISE_PREVIEW,
    )


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny half-precision graphs, to be read only."""
    from tests.doubles.small_bundle import half_bundle

    return half_bundle(tmp_path_factory.mktemp("small") / "bundle")


@pytest.fixture
def small_copy(small_bundle: Path, tmp_path: Path) -> Path:
    """A small bundle that a test may change."""
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


@pytest.fixture
def bundle_copy(golden_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))
