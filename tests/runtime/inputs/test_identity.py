"""Identities: saved whole, loaded as they were, and refused when they are anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

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
