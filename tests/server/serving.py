"""A real server on a real port, in a thread of the test's own process."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import uvicorn
from PIL import Image

from server.app import make_app
from server.config import ServerConfig
from server.jobs.engine import EngineClient
from server.process import DrainingServer
from server.tenants import Authenticate
from tests.paths import GOLDEN

HIM, HER = GOLDEN / "refs" / "man1.png", GOLDEN / "refs" / "woman2.png"
PROMPT = "a man <|image|> in the snow"


class Served:
    """A server that runs, and a client of it. thread: of its event loop."""

    def __init__(self, server: uvicorn.Server, port: int, thread: int) -> None:
        self.server, self.thread = server, thread
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def identity(self, photo: Path = HIM, headers: Mapping[str, str] | None = None) -> str:
        """Upload a photo."""
        form = upload(photo.read_bytes())
        answer = self.client.post("/v1/identities", headers=headers, **form)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def draw(
        self, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return self.client.post("/v1/pictures", json=body, headers=headers)


def upload(photo: bytes) -> dict[str, Any]:
    """A form of httpx's."""
    return {"files": {"photo": photo}, "data": {"consent": "self"}}


def body(identity: str, **changes: Any) -> dict[str, Any]:
    """A small picture."""
    words = {"prompt": PROMPT, "identities": [identity], "num_inference_steps": 3, "seed": 5,
             "height": 64, "width": 64}  # fmt: skip
    return words | changes


@contextmanager
def served(
    engine: EngineClient, *, authenticate: Authenticate | None = None, **settings: Any
) -> Iterator[Served]:
    """Serve until the test is done; the end waits for the server's own."""
    config = ServerConfig(port=0, notice_s=0, **settings)
    server = DrainingServer(make_app(engine, config, authenticate), config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        assert thread.ident is not None
        found = Served(server, port, thread.ident)
        yield found
        found.client.close()
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(reached: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.002)


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events as they come: name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def pixels(b64_json: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(b64_json))) as image:
        return np.asarray(image.convert("RGB"))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
