"""A Ray cluster of this machine alone, for the time of a benchmark."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.serving.client import ServerFailedError
from engines.commands import installed
from engines.errors import ProviderUnavailableError
from engines.system.processes import child_environment

_START_S = 120.0
_STARTED = "Ray runtime started"
# As far as Ray counts; that two servers' engines find room while one takes over from the other.
_CPUS = 64


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """address: what `--ray` is told. pid: of the process that all of its others descend from.

    environment: what a server needs to be let in.
    """

    address: str
    pid: int
    environment: Mapping[str, str]

    def engines(self) -> list[int]:
        """Process ids of the servers' engines."""
        return engines_below(self.pid)


@contextmanager
def started_cluster() -> Iterator[Cluster]:
    """Raises ProviderUnavailableError without Ray, ServerFailedError where it does not start."""
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
    if ray is None:
        raise ProviderUnavailableError("Ray is not installed; type", fix=installed("ray"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # In a folder of its own, nobody else on this machine takes it for the cluster to join.
    folder = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    command = [
        ray, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1",
        f"--num-cpus={_CPUS}", "--num-gpus=0", "--include-dashboard=false",
        "--disable-usage-stats", f"--temp-dir={folder.name}",
    ]  # fmt: skip
    key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray's workers would yield to whatever else this machine does, which the server does not.
    environment = child_environment({"RAY_worker_niceness": "0", **key})
    said = Path(folder.name) / "said"
    with (
        folder,
        said.open("w") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            end = time.monotonic() + _START_S
            while _STARTED not in said.read_text(encoding="utf-8", errors="replace"):
                if process.poll() is not None or time.monotonic() > end:
                    raise ServerFailedError("Ray did not start; `ray start --head` says why")
                time.sleep(0.1)
            yield Cluster(address=f"127.0.0.1:{port}", pid=process.pid, environment=key)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def engines_below(process: int) -> list[int]:
    """Process ids of the engines among a process's descendants."""
    return [each for each in _descendants(process) if _is_engine(each)]


def _descendants(process: int) -> list[int]:
    try:
        words = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [pid for word in words for pid in (int(word), *_descendants(int(word)))]


def _is_engine(process: int) -> bool:
    try:
        title = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return title.startswith(b"ray::ServeReplica:face-diffuser-")
