"""A bundle by its repository on the hub: found, pinned, or refused in words."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from engines.bundle.folder import Bundle
from engines.errors import BundleNotFoundError
from engines.hub.snapshot import local_bundle


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What was asked of a hub that has everything in the folder `snapshot`."""
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(repository: str, *, revision: str | None = None) -> str:
        asked.append((repository, revision))
        return "snapshot"

    module = ModuleType("huggingface_hub")
    vars(module)["snapshot_download"] = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_repository_is_downloaded_at_its_revision(
    kind: type[str], hub: list[tuple[str, str | None]]
) -> None:
    assert local_bundle(kind("owner/face-diffuser")) == Path("snapshot")
    assert local_bundle(kind("owner/face-diffuser@3f2a")) == Path("snapshot")
    assert hub == [("owner/face-diffuser", None), ("owner/face-diffuser", "3f2a")]


@pytest.mark.parametrize("name", ["bundle", "./bundle", "here/bundle", "/there/bundle", "a/b/c"])
def test_what_is_no_hub_id_or_lies_in_a_folder_that_exists_is_never_looked_for(
    name: str, hub: list[tuple[str, str | None]]
) -> None:
    Path("here").mkdir()
    assert local_bundle(name) == name
    assert hub == []


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleNotFoundError) as refused:
        local_bundle("owner/name")
    assert "no folder owner/name" in str(refused.value)
    assert refused.value.fix == "pip install huggingface_hub"


def test_without_a_network_it_says_what_to_type_where_there_is_one(
    hub: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("the name could not be resolved\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(BundleNotFoundError, match="could not be fetched") as refused:
        local_bundle("owner/name@v1")
    assert refused.value.fix == "hf download owner/name --revision v1"
    assert "second line" not in str(refused.value)


def test_a_bundle_of_links_as_the_hubs_cache_has_it_opens(
    small_bundle: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshots" / "3f2a"
    for file in small_bundle.rglob("*"):
        if file.is_file():
            link = snapshot / file.relative_to(small_bundle)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    assert Bundle.open(snapshot).verify() > 0
