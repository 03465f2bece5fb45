"""Identities: saved whole, loaded as they were, and refused when they are anything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engines.bundle.files import FileRefusedError
from runtime import Identity, ReferenceImageError

METADATA = {"format": "face-diffuser identity 1", "encoder": "abc", "reference_resolution": "256"}
EMBEDS = np.linspace(-1, 1, 32, dtype=np.float32)


def identity(**changes: Any) -> Identity:
    fields: dict[str, Any] = {"embeds": EMBEDS, "encoder": "abc", "reference_resolution": 256}
    return Identity(**(fields | changes))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    identity().save(tmp_path / "him.safetensors")
    loaded = Identity.load(tmp_path / "him.safetensors")
    np.testing.assert_array_equal(loaded.embeds, EMBEDS)
    assert loaded.embeds.dtype == np.float32
    assert (loaded.encoder, loaded.reference_resolution) == ("abc", 256)
    assert [path.name for path in tmp_path.iterdir()] == ["him.safetensors"]


def test_a_view_with_strides_is_saved_as_its_values(tmp_path: Path) -> None:
    identity(embeds=EMBEDS[::2]).save(tmp_path / "him.safetensors")
    loaded = Identity.load(tmp_path / "him.safetensors")
    np.testing.assert_array_equal(loaded.embeds, EMBEDS[::2])


def test_identities_can_be_compared_and_kept_in_sets() -> None:
    first, second = identity(), identity()
    assert first == first
    assert first != second
    assert len({first, second}) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"embeds": EMBEDS[None]}, r"float32 \[subject_width\]"),
        ({"embeds": EMBEDS.astype(np.float64)}, r"float32 \[subject_width\]"),
        ({"embeds": list(EMBEDS)}, r"float32 \[subject_width\]"),
        ({"embeds": EMBEDS[:0]}, "finite"),
        ({"embeds": np.full(3, np.nan, np.float32)}, "finite"),
        ({"encoder": None}, "names its encoder"),
        ({"reference_resolution": 0}, "from 1 px"),
    ],
)
def test_an_identity_that_cannot_be_used_is_never_made(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ReferenceImageError, match=reason):
        identity(**changes)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"embeds": EMBEDS}, {}),
        ({"embeds": EMBEDS}, METADATA | {"format": "another"}),
        ({"embeds": EMBEDS}, METADATA | {"reference_resolution": "large"}),
        ({"embeds": EMBEDS}, {k: v for k, v in METADATA.items() if k != "encoder"}),
        ({"weight": EMBEDS}, METADATA),
        ({"embeds": EMBEDS.reshape(2, 16)}, METADATA),
        ({"embeds": np.full(3, np.inf, np.float32)}, METADATA),
    ],
)
def test_another_safetensors_file_is_named(
    tensors: dict[str, Any], metadata: dict[str, str], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "him.safetensors", metadata)
    with pytest.raises(ReferenceImageError, match=r"him\.safetensors"):
        Identity.load(tmp_path / "him.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_file_is_named(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "him.safetensors"
    identity().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ReferenceImageError, match=r"him\.safetensors"):
        Identity.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReferenceImageError, match=r"nobody\.safetensors"):
        Identity.load(tmp_path / "nobody.safetensors")


def test_an_altered_identity_is_refused_wherever_it_was_altered(tmp_path: Path) -> None:
    path = tmp_path / "him.safetensors"
    identity().save(path)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    for place in random.integers(8, len(whole), 80):
        content = bytearray(whole)
        content[place] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(content)
        with pytest.raises(ReferenceImageError):
            Identity.load(path)


def test_an_identity_is_for_its_owners_eyes(tmp_path: Path) -> None:
    path = tmp_path / "him.safetensors"
    path.write_bytes(b"")
    path.chmod(0o666)
    identity().save(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_that_is_not_ours_is_replaced(tmp_path: Path) -> None:
    victim, link, pipe = (tmp_path / name for name in ("victim", "link", "pipe"))
    victim.write_bytes(b"mine")
    victim.chmod(0o400)
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (victim, link, pipe, Path("/dev/null"), tmp_path):
        with pytest.raises(FileRefusedError):
            identity().save(path)
    assert victim.read_bytes() == b"mine"
    assert link.is_symlink()


def test_an_identity_does_not_change_with_what_it_was_made_from() -> None:
    embeds = EMBEDS.copy()
    made = identity(embeds=embeds)
    embeds[:] = 0
    np.testing.assert_array_equal(made.embeds, EMBEDS)
    with pytest.raises(ValueError, match="read-only"):
        made.embeds[0] = 0
