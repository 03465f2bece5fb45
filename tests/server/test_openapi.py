"""The OpenAPI document: what it says is what the server does, and no input is a defect of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.pacing_engine import PacingEngine
from tests.server.serving import served

pytestmark = pytest.mark.slow  # a thousand requests

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.skipif(shutil.which(SCHEMATHESIS) is None, reason="there is no schemathesis here")
def test_schemathesis_finds_no_fault(tmp_path: Path) -> None:
    with served(
        PacingEngine(), tenant_jobs=1000, tenant_pictures=10**6, tenant_steps=10**9,
        tenant_identities=10**6,
    ) as server:  # fmt: skip
        words = ["--config-file", str(CONFIG), "run", f"{server.url}/openapi.json"]
        words += ["--max-examples", "15", "--seed", "1", "--workers", "1"]
        finished = subprocess.run(
            [str(SCHEMATHESIS), *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert finished.returncode == 0, finished.stdout.partition("FAILURES")[2]
