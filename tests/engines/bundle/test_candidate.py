"""A bundle that is not published yet, on file systems with and without links."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.candidate import candidate
from engines.bundle.folder import Bundle


@pytest.mark.parametrize("missing", [(), ("symlink",), ("symlink", "link")])
def test_a_candidate_opens_whatever_links_there_are(
    missing: tuple[str, ...], bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for name in missing:
        monkeypatch.setattr(os, name, refused)
    before = sorted(bundle_copy.rglob("*"))
    manifest = Bundle.open(bundle_copy).manifest
    with candidate(bundle_copy, manifest) as folder:
        assert Bundle.open(folder).verify() > 0
    assert sorted(bundle_copy.rglob("*")) == before
