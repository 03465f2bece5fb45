"""Several servers of one cluster: each has engines of its own, and leaves the others' alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.server.serving import HIM, PROMPT, until

pytest.importorskip("ray")

from benchmarks.serving.client import Server, started_server
from benchmarks.serving.cluster import started_cluster

pytestmark = pytest.mark.slow


def drawn(server: Server) -> int:
    """The status of a small picture."""
    with server.client() as client:
        words: dict[str, Any] = {
            "prompt": PROMPT, "identities": [client.identity(HIM)], "num_inference_steps": 2,
            "height": 64, "width": 64,
        }  # fmt: skip
        return client.ask("POST", "/v1/pictures", words).status


def test_a_server_that_comes_goes_or_dies_leaves_the_others_engines_alone(
    golden_bundle: Path,
) -> None:
    with started_cluster() as cluster:

        def start() -> AbstractContextManager[Server]:
            return started_server(
                golden_bundle, "--threads", 1, "--provider", "onnxruntime-cpu", "--ray",
                cluster.address, environment=cluster.environment,
            )  # fmt: skip

        with start() as one:
            its = cluster.engines()
            assert len(its) == 1
            with start() as other:
                assert len(cluster.engines()) == 2
                assert drawn(other) == drawn(one) == 200
            until(lambda: cluster.engines() == its, 60)
            assert drawn(one) == 200
            assert one.process is not None
            one.process.kill()
            one.process.wait()
        # Ray keeps what its driver does not take down; the next server does.
        assert cluster.engines() == its
        with start() as third:
            until(lambda: not set(its) & set(cluster.engines()), 60)
            assert drawn(third) == 200
            assert len(cluster.engines()) == 1
