"""Bundles that many tests share, built once for all workers."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from engines.bundle.manifest import MANIFEST_NAME
from tests.paths import GOLDEN, ROOT


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
def golden_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden vectors' tiny checkpoint as an fp32 bundle, to be read only.

    Kept in pytest's cache for as long as nothing changes that it is made of: it takes a minute of a
    core. FACE_DIFFUSER_GOLDEN_BUNDLE in the environment names one that was built before.
    """
    if built := os.environ.get("FACE_DIFFUSER_GOLDEN_BUNDLE"):
        return Path(built)
    # Without pytest's cache, where the run was told to leave nothing behind.
    cache = getattr(request.config, "cache", None)
    make = tmp_path_factory.mktemp if cache is None else cache.mkdir
    place: Path = make("golden-bundle")
    bundle = place / golden_digest() / "bundle"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (bundle / MANIFEST_NAME).is_file():
            for older in place.iterdir():
                if older.is_dir():
                    shutil.rmtree(older)
            _build_golden(bundle)
    return bundle


def golden_digest() -> str:
    """Of all that the golden bundle is made of: code, checkpoint, and the libraries' versions."""
    digest = hashlib.sha256(sys.version.encode())
    for name in (
        "torch",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "diffusers",
        "transformers",
        "numpy",
    ):
        digest.update(f"{name} {version(name)}".encode())
    code = (ROOT / folder for folder in ("engines", "export", "kernels", "runtime"))
    for folder in (*code, GOLDEN):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


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
