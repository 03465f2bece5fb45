"""A server in a process of its own, and a client that asks it as a program would."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from engines.commands import PREFIX, SERVER
from engines.errors import FaceDiffuserError
from engines.system.processes import child_environment, module_command

# Ray on a machine that does much else takes minutes.
_START_S = 300.0
_BOUNDARY = "picture"


class ServerFailedError(FaceDiffuserError):
    """The server that was to be measured did not start, or did not answer as it should."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """took_s: from the request to the last byte of the answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    took_s: float

    def json(self) -> Any:
        return json.loads(self.content)


def refuses(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a request was not admitted and may be sent again. headers: names in small letters."""
    return status in (429, 503) and "retry-after" in headers


class Client:
    """One connection that is kept; of one thread."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        return self._ask(method, path, content, {"Content-Type": "application/json"})

    def identity(self, photo: Path) -> str:
        """Upload a photo; its id."""
        parts = [
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="consent"\r\n\r\ndrawn\r\n',
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n',
        ]
        content = "".join(parts).encode() + photo.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        answer = self._ask("POST", "/v1/identities", content, {"Content-Type": kind})
        if answer.status != 201:
            raise ServerFailedError(f"an upload was answered with {answer.status}")
        return str(answer.json()["id"])

    def metric(self, name: str) -> float:
        """A number of /metrics; 0 while it is not told."""
        lines = self.ask("GET", "/metrics").content.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    def events(self, body: Any) -> Generator[tuple[str, dict[str, Any]]]:
        """A streamed picture's events; "refused" alone where it may be asked for again. Leaving
        them early hangs up. Raises ServerFailedError for every other answer."""
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/pictures", json.dumps(body).encode(), headers)
        response, name = self._connection.getresponse(), ""
        try:
            headers = {name.lower(): value for name, value in response.getheaders()}
            if refuses(response.status, headers):
                yield "refused", {}
            elif response.status != 200:
                raise ServerFailedError(f"a picture was answered with {response.status}")
            for line in response:
                word, _, rest = line.decode().rstrip().partition(": ")
                if word == "event":
                    name = rest
                elif word == "data":
                    yield name, json.loads(rest)
        finally:
            response.close()
            self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        started = time.perf_counter()
        self._connection.request(method, path, content, dict(headers))
        response = self._connection.getresponse()
        body = response.read()
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            content=body,
            took_s=time.perf_counter() - started,
        )


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that is ready. jobs: how its own log says that they ended, by outcome."""

    port: int
    pid: int
    ready_s: float
    jobs: Counter[str] = field(default_factory=Counter)
    process: subprocess.Popen[str] | None = None

    def client(self) -> Client:
        return Client(self.port)

    def stopped(self, limit_s: float = 120.0) -> int:
        """Wait for its end; its exit code. Raises ServerFailedError."""
        assert self.process is not None
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ServerFailedError(f"the server did not stop within {limit_s:.0f} s") from None


@contextmanager
def started_server(
    bundle: Path, *words: object, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server of a bundle and wait until it is ready. Raises ServerFailedError.

    environment: variables beside this process's.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = module_command(PREFIX + SERVER, bundle, "--port", port, *words)
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=child_environment(environment), stderr=subprocess.PIPE, text=True
    ) as process:
        said: list[str] = []
        jobs: Counter[str] = Counter()
        reader = threading.Thread(target=_read_log, args=(process, said, jobs), daemon=True)
        reader.start()
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - started > _START_S:
                    raise ServerFailedError(f"the server did not start: {''.join(said).strip()}")
                time.sleep(0.005)
            ready_s = time.perf_counter() - started
            yield Server(port=port, pid=process.pid, ready_s=ready_s, jobs=jobs, process=process)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join()


def _read_log(process: subprocess.Popen[str], said: list[str], jobs: Counter[str]) -> None:
    """Keep a server's last words, and count how its jobs ended."""
    assert process.stderr is not None
    for line in process.stderr:
        said[:] = [line]
        with suppress(ValueError):
            found = json.loads(line)
            if found["event"] == "job":
                jobs[found["outcome"]] += 1


def _is_ready(port: int) -> bool:
    try:
        with Client(port) as client:
            return client.ask("GET", "/readyz").status == 200
    except OSError:
        return False
