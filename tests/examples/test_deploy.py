"""The container and its manifests, as far as a machine without a container runtime can tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.__main__ import parser
from server.app import make_app
from server.config import ServerConfig
from tests.doubles.pacing_engine import PacingEngine
from tests.paths import ROOT

DEPLOY = ROOT / "examples" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def instruction(name: str) -> str:
    """The last one's words."""
    joined = DOCKERFILE.replace("\\\n", " ")
    found: list[str] = re.findall(rf"^\s*{name} (.*)$", joined, re.MULTILINE)
    return found[-1]


def command() -> list[str]:
    words = [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]
    assert all(isinstance(each, str) for each in words)
    return words


@pytest.fixture(scope="module")
def config() -> ServerConfig:
    """What the container's command says; its files are not here."""
    options = vars(parser().parse_args(command()[2:]))
    assert options["bundle"] == Path("/bundle")
    assert options["keys"] == Path("/run/secrets/keys.toml")
    return ServerConfig(host="127.0.0.1", port=options["port"])


def deployment() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return next(each for each in documents if each["kind"] == "Deployment")


def container() -> dict[str, Any]:
    (found,) = deployment()["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_the_container_runs_the_server_with_keys_on_its_port(config: ServerConfig) -> None:
    assert command()[:2] == ["face-diffuser", "serve"]
    assert instruction("EXPOSE") == str(config.port)
    assert f":{config.port}/livez" in DOCKERFILE
    assert container()["ports"][0]["containerPort"] == config.port
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert service["ports"] == [f"127.0.0.1:{config.port}:{config.port}"]


def test_extras_are_those_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    told = re.findall(
        r"EXTRAS[=:] ?([a-z][\w,-]*\w)", DOCKERFILE + (DEPLOY / "compose.yaml").read_text()
    )
    assert len(told) >= 3
    assert {name for words in told for name in words.split(",")} <= set(extras)


def test_the_end_waits_for_what_was_admitted(config: ServerConfig) -> None:
    least_s = config.drain_s + config.notice_s
    assert deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > least_s
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > least_s


def test_probes_ask_routes_that_there_are(config: ServerConfig) -> None:
    paths = make_app(PacingEngine(), config).openapi()["paths"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["path"] in paths


def test_every_mount_has_its_volume_and_the_files_of_the_command_their_mount() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    volumes = {each["name"] for each in pod["volumes"]}
    mounts = {each["mountPath"]: each for each in container()["volumeMounts"]}
    assert {each["name"] for each in mounts.values()} == volumes
    paths = [word for word in command() if word.startswith("/")]
    assert paths
    for word in paths:
        assert any(word == mount or word.startswith(f"{mount}/") for mount in mounts), word
    assert mounts["/bundle"]["readOnly"]


def test_manifests_are_kubernetes_own() -> None:
    validate = shutil.which("kubernetes-validate")
    assert validate is not None
    finished = subprocess.run(
        [validate, str(DEPLOY / "kubernetes.yaml")], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr + finished.stdout


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    hadolint = shutil.which("hadolint")
    assert hadolint is not None
    finished = subprocess.run(
        [hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout
