"""Trials that take away what draws or serves, under load: no admitted request may be lost, and each
picture must be the one that the embedded API draws of its seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.serving.asking import Asking, asking
from benchmarks.serving.client import Server, ServerFailedError
from benchmarks.serving.record import LossRow
from benchmarks.serving.trials import Body

# Clients beyond one for each engine: some jobs always wait.
_WAITING = 3
# How often all engines are killed at once, rather than one.
_ALL = 0.5
_LIMIT_S = 300.0
_POLL_S = 0.02

# Process ids of the engines that live.
Engines = Callable[[], Sequence[int]]
# A started server, which ends with its block.
Start = Callable[[], AbstractContextManager[Server]]
# The digest of a seed's picture, as the embedded API draws it.
Expected = Callable[[int], str]


def kills(
    server: Server, body: Body, count: int, *, engines: Engines, of: int, expected: Expected
) -> LossRow:
    """Kill engines' processes at random times, one or all of them, each time when all are back and
    draw. of: how many there are."""
    chance, killed, started = random.Random(count), 0, time.monotonic()
    with asking(body, [server.port], of + _WAITING) as clients:
        while killed < count:
            _until(lambda: len(engines()) == of, "the engines did not come back")
            clients.wait(2 * of)
            time.sleep(chance.uniform(0, 1))
            victims = list(engines())
            if victims and chance.random() > _ALL:
                victims = [chance.choice(victims)]
            for each in victims[: count - killed]:
                os.kill(each, signal.SIGKILL)
                killed += 1
        clients.wait(2 * of)
    return row_of("kill", killed, [clients], [server], expected, started)


def stops(start: Start, body: Callable[[Server], Body], count: int, expected: Expected) -> LossRow:
    """Stop one server after the other by SIGTERM, each at a random time."""
    chance, started = random.Random(count), time.monotonic()
    asked: list[Asking] = []
    servers: list[Server] = []
    for _ in range(count):
        with start() as server, asking(body(server), [server.port], 1 + _WAITING) as clients:
            servers.append(server)
            asked.append(clients)
            clients.wait(1)
            time.sleep(chance.uniform(0, 1))
            _stop(server, clients)
    return row_of("stop", count, asked, servers, expected, started)


def updates(
    start: Start, body: Callable[[Server], Body], count: int, expected: Expected
) -> LossRow:
    """One server takes over from the other, as behind a balancer: when the new one is ready, new
    requests go there, and the old one is stopped by SIGTERM."""
    with ExitStack() as stack:
        old = stack.enter_context(start())
        servers = [old]
        words, started = body(old), time.monotonic()
        with asking(words, [old.port], 1 + _WAITING) as clients:
            for _ in range(count):
                new = stack.enter_context(start())
                servers.append(new)
                clients.wait(2)
                clients.ports = (old.port, new.port)
                _stop(old, clients, then=(new.port,))
                clients.wait(2)
                old = new
    return row_of("update", count, [clients], servers, expected, started)


def scale_downs(
    server: Server, body: Body, count: int, *, engines: Engines, of: int, expected: Expected
) -> LossRow:
    """So many clients that all engines are needed, then one, who asks while the others go."""
    started = time.monotonic()
    with asking(body, [server.port], 1, most=of + _WAITING) as clients:
        for _ in range(count):
            clients.clients = of + _WAITING
            _until(lambda: len(engines()) == of, "no engine was started for those who wait")
            clients.wait(2 * of)
            clients.clients = 1
            _until(lambda: len(engines()) < of, "no engine was taken away")
            clients.wait(1)
    return row_of("scale-down", count, [clients], [server], expected, started)


def row_of(
    kind: str,
    times: int,
    asked: Sequence[Asking],
    servers: Sequence[Server],
    expected: Expected,
    started: float,
) -> LossRow:
    """What became of all requests. Raises ReferenceMismatchError where one was lost or is wrong."""
    took_s = time.monotonic() - started
    outcomes = [each for clients in asked for each in clients.outcomes]
    lost = [each for each in outcomes if each.digest is None]
    wanted = {seed: expected(seed) for seed in sorted({each.seed for each in outcomes})}
    if len(set(wanted.values())) < len(wanted):
        raise ReferenceMismatchError("two seeds give the same picture: this would show nothing")
    drawn = [each for each in outcomes if each.digest is not None]
    wrong = [each.seed for each in drawn if each.digest != wanted[each.seed]]
    row = LossRow(
        kind=kind,
        times=times,
        admitted=len(outcomes),
        lost=len(lost),
        wrong=len(wrong),
        drawn_again=sum(each.again > 0 for each in outcomes),
        refused=sum(each.refused for each in asked),
        longest_s=max((each.took_s for each in drawn), default=0.0),
        took_s=took_s,
    )
    if wrong or lost:
        why = ", ".join(sorted({each.why for each in lost})) or "none was lost"
        raise ReferenceMismatchError(
            f"{kind}, {times} times: of {len(outcomes)} admitted requests {len(lost)} were lost "
            f"({why}), {len(wrong)} pictures are not those of their seeds {wrong[:5]}"
        )
    # The same in the servers' own words.
    unlike = {name: n for each in servers for name, n in each.jobs.items() if name != "done"}
    if unlike:
        raise ReferenceMismatchError(f"{kind}: the servers' logs have jobs that ended as {unlike}")
    return row


def _stop(server: Server, clients: Asking, then: Sequence[int] = ()) -> None:
    """SIGTERM; once a client was refused for it, the others ask there no more, as a balancer that
    looks at /readyz would have it."""
    assert server.process is not None
    refused = clients.refused
    server.process.terminate()
    _until(
        lambda: clients.refused > refused or server.process is None
        or server.process.poll() is not None, "nobody was told that the server stops",
    )  # fmt: skip
    clients.ports = tuple(then)
    if (code := server.stopped()) != 0:
        raise ServerFailedError(f"a server that was stopped ended with {code}")


def _until(reached: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + _LIMIT_S
    while not reached():
        if time.monotonic() > end:
            raise ServerFailedError(f"{otherwise} within {_LIMIT_S:.0f} s")
        time.sleep(_POLL_S)
