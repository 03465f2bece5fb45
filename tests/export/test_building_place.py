"""Where a build works: beside a good bundle, alone in it to the end, with room for its copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engines.bundle.lock import BundleBusyError, build_lock
from export.bundle import building_place
from export.checks.disk_space import DiskSpaceError, has_links


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """What a build takes for a bundle that works, of 9,000 bytes."""
    bundle = tmp_path / "bundle"
    (bundle / "build").mkdir(parents=True)
    (bundle / "manifest.json").touch()
    (bundle / "weights.data").write_bytes(bytes(9000))
    return bundle


@pytest.mark.parametrize("exchanges", ["folders are exchanged", "folders are renamed"])
def test_no_other_build_begins_between_the_swap_and_the_plans(
    exchanges: str, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exchanges == "folders are renamed":
        monkeypatch.setattr("engines.bundle.swap._exchanged", lambda *_: False)
    with building_place(good) as place:
        assert place.folder != good
        with pytest.raises(BundleBusyError), build_lock(good):
            pass
        (place.folder / "new").touch()
        place.publish()
        assert (good / "new").is_file()
        with pytest.raises(BundleBusyError), build_lock(good):
            pass
    with build_lock(good):
        pass
    assert [path.name for path in good.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("why", ["a disk is mounted on it", "its folder may not be written"])
def test_a_bundle_that_cannot_be_swapped_is_built_in_its_own_folder(
    why: str, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "a disk is mounted on it":
        monkeypatch.setattr("os.path.ismount", lambda path: path == good)
    else:
        monkeypatch.setattr("os.access", lambda path, _: path != good.parent)
    with building_place(good) as place:
        assert (place.folder, place.bundle) == (good, good)
        place.publish()
    assert (good / "weights.data").is_file()


def test_a_build_that_stops_leaves_the_bundle_as_it_was(good: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"), building_place(good):
        raise RuntimeError("stopped")
    assert (good / "manifest.json").is_file()
    with build_lock(good):
        pass


def test_without_links_room_for_the_copies_is_asked_for_before_they_are_made(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_links(good.parent)

    def no_links(self: Path, target: Path) -> None:
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert not has_links(good.parent)
    usage = shutil.disk_usage(good)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=8999))
    with pytest.raises(DiskSpaceError, match=r"0\.00 GB"), building_place(good):
        pass
    assert [path.name for path in good.parent.iterdir()] == ["bundle"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9000))
    with building_place(good) as place:
        assert (place.folder / "weights.data").stat().st_size == 9000


def test_what_an_interrupted_build_finished_beside_a_bundle_stays(good: Path) -> None:
    with pytest.raises(RuntimeError), building_place(good) as place:
        (place.folder / "weights.data").unlink()
        (place.folder / "weights.data").write_bytes(b"new")
        raise RuntimeError("stopped")
    assert (good / "weights.data").stat().st_size == 9000
    with building_place(good) as place:
        assert (place.folder / "weights.data").read_bytes() == b"new"
        assert not (place.folder / "manifest.json").exists(), "it is no bundle yet"
        place.publish()
    assert (good / "weights.data").read_bytes() == b"new"


def test_what_a_stopped_swap_left_is_in_nobodys_way(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.bundle.swap._exchanged", lambda *_: False)
    left = good.with_name(".bundle.old")
    left.mkdir()
    (left / "weights.data").touch()
    with building_place(good) as place:
        (place.folder / "new").touch()
        place.publish()
    assert (good / "new").is_file()
    assert [path.name for path in good.parent.iterdir()] == ["bundle"]
