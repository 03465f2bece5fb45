"""Clients that keep asking while servers and engines come and go, and what became of each request.

A request is admitted from the moment that its client was told so; from there on it must end with
the picture of its seed. One that was refused is asked for again, at the next server.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serving.client import Client, ServerFailedError, refuses

_PAUSE_S = 0.05
# Between two looks at a job that nobody streams.
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of an admitted request. digest: of its picture's pixels; None where it was lost.

    again: how often its steps began anew. took_s: from its admission. why: it was lost.
    """

    seed: int
    digest: str | None
    again: int = 0
    took_s: float = 0.0
    why: str = ""


class Asking:
    """Threads that ask for one picture after the other, each of a seed of its own.

    ports: of the servers that may be asked; clients: how many of the threads ask. Both may be
    changed at any time.
    """

    def __init__(self, body: dict[str, Any], ports: Sequence[int], clients: int) -> None:
        self.ports, self.clients = tuple(ports), clients
        self.outcomes: list[Outcome] = []
        self.refused = 0
        self._body = body
        self._seeds = itertools.count(1)
        self._lock = threading.Lock()
        self._over = threading.Event()
        # What no outcome could be made of: the trial fails with it.
        self.broken: list[BaseException] = []

    @property
    def drawn(self) -> int:
        with self._lock:
            return sum(each.digest is not None for each in self.outcomes)

    def wait(self, more: int, limit_s: float = 300.0) -> None:
        """Wait until so many more pictures are drawn. Raises ServerFailedError."""
        wanted, end = self.drawn + more, time.monotonic() + limit_s
        while self.drawn < wanted:
            if self.broken:
                raise self.broken[0]
            if time.monotonic() > end:
                raise ServerFailedError(f"no {more} pictures were drawn within {limit_s:.0f} s")
            time.sleep(_POLL_S)

    def run(self, number: int) -> None:
        """One client, until all is over."""
        try:
            while not self._over.is_set():
                if number >= self.clients or not self.ports:
                    time.sleep(_PAUSE_S)
                    continue
                self._one(next(self._seeds))
        except BaseException as error:
            self.broken.append(error)

    def end(self) -> None:
        """Let each client end its picture."""
        self._over.set()

    def _one(self, seed: int) -> None:
        body = {**self._body, "seed": seed}
        # Half of them hang on their request, half come back for the picture.
        ask = _streamed if seed % 2 else _fetched
        for at in itertools.count(seed):
            if not (ports := self.ports):
                return
            outcome = ask(ports[at % len(ports)], body)
            with self._lock:
                if outcome is not None:
                    self.outcomes.append(outcome)
                    return
                self.refused += 1
            if self._over.is_set():
                return
            time.sleep(_PAUSE_S)


@contextmanager
def asking(
    body: dict[str, Any], ports: Sequence[int], clients: int, *, most: int | None = None
) -> Iterator[Asking]:
    """Clients that ask until the block ends; then the last pictures are waited for.

    most: clients that there may be. Raises what a client raised.
    """
    found = Asking(body, ports, clients)
    threads = [
        threading.Thread(target=found.run, args=(number,)) for number in range(most or clients)
    ]
    for each in threads:
        each.start()
    try:
        yield found
    finally:
        found.end()
        for each in threads:
            each.join()
    if found.broken:
        raise found.broken[0]


def digest_of(pixels: Any) -> str:
    """Of a picture's pixels [h, w, 3]."""
    found = np.ascontiguousarray(pixels, np.uint8)
    return hashlib.sha256(repr(found.shape).encode() + found.tobytes()).hexdigest()


def _picture(b64_json: str) -> str:
    with Image.open(io.BytesIO(base64.b64decode(b64_json))) as image:
        return digest_of(image.convert("RGB"))


def _streamed(port: int, body: dict[str, Any]) -> Outcome | None:
    """A request whose client reads its events; None where it was refused."""
    seed, started, last, again = body["seed"], None, 0, 0
    digest, why = None, "its events ended"
    try:
        with Client(port) as client, closing(client.events({**body, "stream": True})) as events:
            for name, data in events:
                match name:
                    case "refused":
                        return None
                    case "queued":
                        started = time.monotonic()
                    case "step":
                        again += data["step"] <= last
                        last = data["step"]
                    case "picture" if data["seed"] == seed:
                        digest = _picture(data["b64_json"])
                    case "picture":
                        why = f"the picture of seed {data['seed']} came"
                    case "error" | "cancelled":
                        why = data.get("type", name)
    except ConnectionRefusedError:
        return None
    except ServerFailedError as error:
        why = error.reason
    except (OSError, HTTPException) as error:
        why = f"its connection broke: {type(error).__name__}"
    took_s = 0.0 if started is None else time.monotonic() - started
    return Outcome(seed=seed, digest=digest, again=again, took_s=took_s, why=why)


def _fetched(port: int, body: dict[str, Any]) -> Outcome | None:
    """A request whose client comes back for the picture; None where it was refused."""
    seed, started = body["seed"], time.monotonic()
    try:
        with Client(port) as client:
            answer = client.ask("POST", "/v1/pictures", {**body, "wait": False})
            if refuses(answer.status, answer.headers):
                return None
            if answer.status != 202:
                return Outcome(seed=seed, digest=None, why=f"answered with {answer.status}")
            job = answer.json()["id"]
            while (found := client.ask("GET", f"/v1/pictures/{job}").json())["state"] in (
                "queued", "running",
            ):  # fmt: skip
                time.sleep(_POLL_S)
    except ConnectionRefusedError:
        return None
    except (OSError, HTTPException) as error:
        return Outcome(seed=seed, digest=None, why=f"its connection broke: {type(error).__name__}")
    if found["state"] != "done" or found["seeds"] != [seed]:
        why = (found["error"] or {}).get("type", found["state"])
        return Outcome(seed=seed, digest=None, why=why)
    digest = _picture(found["images"][0]["b64_json"])
    return Outcome(seed=seed, digest=digest, took_s=time.monotonic() - started)
