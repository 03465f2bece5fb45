"""`python -m server`: its words, its start, and an end that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.paths import ROOT
from tests.server.serving import HIM, body, free_port, until, upload


@contextmanager
def process(bundle: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    port = free_port()
    command = [sys.executable, "-m", "server", str(bundle), "--port", str(port), "--threads", "1"]
    with subprocess.Popen(
        [*command, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                until(lambda: _is_ready(client), 120)
                yield started, client
        finally:
            started.kill()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.ConnectError:
        return False


def test_sigterm_is_heard_as_not_ready_and_loses_no_admitted_job(golden_bundle: Path) -> None:
    with process(golden_bundle, "--notice-s", "1.5", "--drain-s", "600") as (started, client):
        form = upload(HIM.read_bytes())
        who = client.post("/v1/identities", **form).json()["id"]
        words = body(who, num_inference_steps=150, wait=False)
        detached = client.post("/v1/pictures", json=words).json()["id"]
        with ThreadPoolExecutor(4) as threads:
            asked = [
                threads.submit(client.post, "/v1/pictures", json=body(who, num_inference_steps=20))
                for _ in range(4)
            ]
            until(lambda: "facediffuser_queue_length 4.0" in client.get("/metrics").text, 60)
            started.send_signal(signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503, 60)
            refused = client.post("/v1/pictures", json=body(who))
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            assert [each.result().status_code for each in asked] == [200] * 4
        assert client.get(f"/v1/pictures/{detached}").json()["state"] == "done"
        assert started.wait(60) == 0
        assert started.stderr is not None
        lines = [json.loads(line) for line in started.stderr.read().splitlines()]
        assert "draining" in [line["event"] for line in lines]


def test_a_second_signal_stops_at_once(golden_bundle: Path) -> None:
    with process(golden_bundle) as (started, client):
        form = upload(HIM.read_bytes())
        who = client.post("/v1/identities", **form).json()["id"]
        client.post("/v1/pictures", json=body(who, num_inference_steps=999, wait=False))
        started.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503, 60)
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0
        assert started.stderr is not None
        lines = [json.loads(line) for line in started.stderr.read().splitlines()]
        assert [line["outcome"] for line in lines if line["event"] == "job"] == ["stopped"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["no-such-bundle"], "no-such-bundle"),
        (["bundle", "--host", "0.0.0.0"], "this machine alone"),
        (["bundle", "--port", "99999"], "port"),
        (["bundle", "--store", "/nowhere/x.sqlite"], "can be kept|need a key"),
        (["bundle", "--config", "/nowhere/x.toml"], "cannot be read"),
    ],
)
def test_what_it_cannot_do_ends_with_1_and_the_reason(
    golden_bundle: Path, words: list[str], reason: str
) -> None:
    words = [str(golden_bundle) if word == "bundle" else word for word in words]
    finished = subprocess.run(
        [sys.executable, "-m", "server", *words], cwd=ROOT, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert finished.returncode == 1, finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert any(each in last for each in reason.split("|")), last
