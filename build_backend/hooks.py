"""The hooks that pip calls (PEP 517 and 660): setuptools' own, but for the wheel's.

An editable install and a source distribution hold the repository as it is. A wheel is built from a
copy in which the packages and the data that pyproject.toml lists in [tool.face-diffuser.wheel] lie
below one name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

from build_backend.one_name import OneName

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Write the wheel into a folder; returns its file name."""
    out = Path(wheel_directory).resolve()
    metadata = None if metadata_directory is None else str(Path(metadata_directory).resolve())
    with _staged():
        return str(build_meta.build_wheel(str(out), config_settings, metadata))


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    """Write the wheel's metadata into a folder; returns its dist-info folder's name."""
    out = Path(metadata_directory).resolve()
    with _staged():
        return str(build_meta.prepare_metadata_for_build_wheel(str(out), config_settings))


@contextmanager
def _staged() -> Iterator[None]:
    """Work in a copy of the project that is laid out as the wheel is."""
    with tempfile.TemporaryDirectory() as folder, chdir(stage(Path.cwd(), Path(folder))):
        yield


def stage(project: Path, folder: Path) -> Path:
    """Lay a project out in a folder as its wheel is; returns the folder. Raises LayoutError."""
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    layout = settings["tool"]["face-diffuser"]["wheel"]
    one = OneName(name=layout["name"], parts=tuple(layout["parts"]))
    metadata = settings["project"]
    for name in ("pyproject.toml", metadata["readme"], *metadata["license-files"]):
        shutil.copy(project / name, folder)
    home = folder / one.name
    _copy(project / one.name, home)
    for name in (*one.parts, *layout["data"]):
        _copy(project / name, home / name)
    for path in home.rglob("*.py"):
        name = os.fspath(path.relative_to(home))
        path.write_text(one.moved(path.read_text(encoding="utf-8"), name), encoding="utf-8")
    return folder


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
