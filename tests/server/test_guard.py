"""Who may ask, from where, and with how much."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import HTTPConnection

from server.__main__ import config_of
from server.config import ConfigError, ServerConfig, settings_of
from server.guard import POLICY
from server.tenants import LOCAL, Tenant
from tests.doubles.pacing_engine import PacingEngine
from tests.server.serving import PROMPT, Served, body, served, upload

KEYS = """
[[tenants]]
name = "acme"
key_sha256 = "{acme}"
priority = "high"

[[tenants]]
name = "guest"
key_sha256 = "{guest}"
priority = "low"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(PacingEngine(), max_upload_mib=1) as found:
        yield found


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("acme", "guest")}
    file = tmp_path / "keys.toml"
    file.write_text(KEYS.format(**digests))
    return file


def test_without_keys_only_this_machine_is_listened_to() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError, match="this machine alone"):
            ServerConfig(host=host)
    for host in ("127.0.0.1", "::1", "localhost"):
        ServerConfig(host=host)


def test_a_key_says_whose_a_request_is_and_how_high_its_priority_may_be(keys: Path) -> None:
    with served(PacingEngine(), keys=keys) as server:
        for headers in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic acme"}):
            assert server.client.get("/v1/identities", headers=headers).status_code == 401
        for name, priority, status in (
            ("acme", "high", 200), ("guest", "normal", 403), ("guest", "low", 200),
            ("guest", None, 200),
        ):  # fmt: skip
            headers = {"Authorization": f"Bearer {name}"}
            who = server.identity(headers=headers)
            answer = server.draw(body(who, priority=priority), headers)
            assert answer.status_code == status, answer.text
        assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
    ids=str,
)
def test_pages_of_other_sites_get_nothing(server: Served, headers: dict[str, str]) -> None:
    answer = server.client.get("/v1/identities", headers=headers)
    assert answer.status_code == 403
    near = {"Origin": server.url.replace("://", "://evil.")}
    assert server.client.get("/v1/identities", headers=near).status_code == 403
    own = server.client.get("/v1/identities", headers={"Origin": server.url})
    assert own.status_code == 200


@pytest.mark.parametrize(("over", "status"), [(0, 422), (1, 413)])
def test_a_body_may_be_as_large_as_the_limit(over: int, status: int) -> None:
    with served(PacingEngine(), max_upload_mib=1) as server:
        content = b"[" + b" " * ((1 << 20) - 2 + over) + b"]"
        answer = server.client.post(
            "/v1/pictures", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == status


def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(server: Served) -> None:
    large = b"x" * (2 << 20)
    form = upload(large)
    assert server.client.post("/v1/identities", **form).status_code == 413
    request = server.client.build_request("POST", "/v1/identities", **form)
    content = request.read()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    headers = {"Content-Type": request.headers["content-type"]}
    answer = server.client.post("/v1/identities", content=pieces(), headers=headers)
    assert answer.status_code == 413


def test_every_answer_says_what_a_page_may_load(server: Served) -> None:
    for path in ("/", "/livez", "/none", "/v1/identities"):
        answer = server.client.get(path)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert (
        server.client.get("/", headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"
    )
    odd = server.client.get("/", headers={"X-Request-Id": 'a"b c'})
    assert odd.headers["x-request-id"] != 'a"b c'


def test_a_tenants_limits_answer_429_with_the_time_to_wait() -> None:
    with served(PacingEngine(), tenant_pictures=2, tenant_identities=1) as server:
        who = server.identity()
        form = upload(b"x")
        answer = server.client.post("/v1/identities", **form)
        assert (answer.status_code, answer.json()["error"]["type"]) == (429, "identities")
        assert [server.draw(body(who)).status_code for _ in range(3)] == [200, 200, 429]
        refused = server.draw(body(who))
        assert 20 <= int(refused.headers["retry-after"]) <= 30
        assert "facediffuser_refused_total" in server.client.get("/metrics").text


def test_a_string_is_never_a_path_on_the_server(server: Served, tmp_path: Path) -> None:
    trap = tmp_path / "photo.png"
    trap.write_bytes(b"secret")
    words = {"prompt": PROMPT, "identities": [str(trap)], "num_inference_steps": 2}
    assert server.draw(words).status_code in (404, 422)
    data = {"prompt": PROMPT, "image": str(trap)}
    answer = server.client.post("/v1/images/edits", data=data, files={"x": b"x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "image")


def test_settings_come_from_a_file_and_unknown_ones_are_named(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("queue = 4\ntimeout_s = 5.0\n")
    assert settings_of(file) == {"queue": 4, "timeout_s": 5.0}
    file.write_text("quueue = 4\n")
    with pytest.raises(ConfigError, match="quueue"):
        settings_of(file)
    file.write_text("= 4\n")
    with pytest.raises(ConfigError, match="TOML"):
        settings_of(file)


def test_flags_win_over_the_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("queue = 4\nport = 1\nprovider = 'openvino'\n")
    config = config_of(["bundle", "--config", str(file), "--port", "2"])
    assert (config.queue, config.port, config.provider) == (4, 2, "openvino")
    file.write_text("queue = 0\n")
    with pytest.raises(ConfigError, match="queue"):
        config_of(["bundle", "--config", str(file)])


def test_errors_of_the_framework_have_the_same_shape(server: Served) -> None:
    answers = [
        server.client.get("/v1/none"), server.client.put("/v1/pictures"),
        server.client.post("/v1/pictures", content=b"{"),
        httpx.post(f"{server.url}/v1/identities", content=b"x"),
    ]  # fmt: skip
    assert [each.status_code for each in answers] == [404, 405, 422, 415]
    for each in answers:
        assert set(each.json()["error"]) == {"type", "code", "message", "param", "retryable"}


def test_a_hook_that_may_wait_does_not_hold_up_the_others() -> None:
    threads: dict[str, int] = {}

    def waits(connection: HTTPConnection) -> Tenant:
        threads["waits"] = threading.get_ident()
        return LOCAL

    async def awaits(connection: HTTPConnection) -> Tenant | None:
        threads["loop"] = threading.get_ident()
        return LOCAL if "x-key" in connection.headers else None

    class Accounts:
        async def __call__(self, connection: HTTPConnection) -> Tenant | None:
            return await awaits(connection)

    with served(PacingEngine(), authenticate=waits) as server:
        assert server.client.get("/v1/identities").status_code == 200
        threads["server"] = server.thread
    assert threads["waits"] != threads["server"]
    for hook in (awaits, Accounts()):
        with served(PacingEngine(), authenticate=hook) as server:
            assert server.client.get("/v1/identities").status_code == 401
            assert server.client.get("/v1/identities", headers={"x-key": "a"}).status_code == 200
            assert threads["loop"] == server.thread
