"""A slice of the damaged checkpoints; all of them: `python -m tests.export.checkpoint.fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.checkpoint.fuzz import outcome, read_all, sources_in, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    read_all(sources_in(folder), compare=True)
    return folder


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_damaged_checkpoint_is_refused_or_read_as_it_says(seed: int, model: Path) -> None:
    done, came, words = outcome(model, seed)
    assert came in ("refused", "read"), f"{done}: {words}"
