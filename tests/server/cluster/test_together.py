"""Jobs that wait and have one form share a call on Ray too, where that was measured to pay."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving.client import Client
from server.config import ServerConfig
from tests.server.serving import served
from tests.server.six_clients import (
    SUBLINEAR,
    assert_as_drawn_alone,
    bundle_with_curve,
    pictures_of_six,
)

pytest.importorskip("ray")

from server.cluster.application import opened_on_ray

pytestmark = pytest.mark.slow


def test_pictures_that_share_a_call_equal_those_drawn_alone(
    golden_bundle: Path, tmp_path: Path
) -> None:
    bundle = bundle_with_curve(golden_bundle, SUBLINEAR, tmp_path / "bundle")
    config = ServerConfig(ray="local", engines=1, threads=1, provider="onnxruntime-cpu")  # type: ignore[arg-type]
    engine, _ = opened_on_ray(bundle, config)
    calls = "facediffuser_jobs_per_call"
    with served(engine) as server, Client(server.client.base_url.port or 0) as operator:
        pictures = pictures_of_six(server, begun=lambda: operator.metric(f"{calls}_count") > 0)
        assert operator.metric(f"{calls}_sum") == 6
        assert 0 < operator.metric(f"{calls}_count") < 6
    assert_as_drawn_alone(pictures, golden_bundle)
