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
from packaging.requirements import Requirement

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


def ray_cluster() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "raycluster.yaml").read_text())
    found: dict[str, Any] = next(each for each in documents if each["kind"] == "RayCluster")["spec"]
    return found


def ray_pods() -> list[dict[str, Any]]:
    """The templates of the head's pod, with the server in it, and of the workers'."""
    spec = ray_cluster()
    return [each["template"] for each in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def ray_server() -> dict[str, Any]:
    return next(each for each in ray_pods()[0]["spec"]["containers"] if each["name"] == "server")


def test_the_container_runs_the_server_with_keys_on_its_port(config: ServerConfig) -> None:
    assert command()[:2] == ["face-diffuser", "serve"]
    assert instruction("EXPOSE") == str(config.port)
    assert f":{config.port}/livez" in DOCKERFILE
    assert container()["ports"][0]["containerPort"] == config.port
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert service["ports"] == [f"127.0.0.1:{config.port}:{config.port}"]


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, list[str]] = project["optional-dependencies"]
    return found


def test_extras_are_those_of_the_package() -> None:
    told = re.findall(
        r"EXTRAS[=:] ?([a-z][\w,-]*\w)",
        "".join(map(Path.read_text, sorted(DEPLOY.iterdir()))),
    )
    assert len(told) >= 4
    assert {name for words in told for name in words.split(",")} <= set(extras())


def test_the_end_waits_for_what_was_admitted(config: ServerConfig) -> None:
    least_s = config.drain_s + config.notice_s
    assert deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > least_s
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > least_s


def test_probes_ask_routes_that_there_are(config: ServerConfig) -> None:
    paths = make_app(PacingEngine(), config).openapi()["paths"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        for server in (container(), ray_server()):
            assert server[probe]["httpGet"]["path"] in paths


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


def test_a_ray_cluster_has_a_gpu_for_each_engine_of_its_server() -> None:
    words = [each.replace("$(STORE)", "postgresql://db/people") for each in ray_server()["args"]]
    entrypoint = json.loads(instruction("ENTRYPOINT"))
    options = parser().parse_args([*entrypoint[2:], *words])
    assert options.ray == "auto" and options.engine_gpus == 1
    (group,) = ray_cluster()["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] * group["replicas"] == options.engines
    assert ray_server()["ports"][0]["containerPort"] == options.port
    # A driver reaches its node by files of both, and waits for engines to open: none on the head.
    head, _ = ray_pods()[0]["spec"]["containers"]
    shared = {each["mountPath"] for each in head["volumeMounts"]}
    assert {"/tmp/ray", "/dev/shm"} <= shared
    assert shared <= {each["mountPath"] for each in ray_server()["volumeMounts"]}
    assert ray_cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (needed,) = map(Requirement, extras()["ray"])
    assert ray_cluster()["rayVersion"] in needed.specifier


def test_the_head_of_a_ray_cluster_outlives_its_server(config: ServerConfig) -> None:
    head, _ = ray_pods()[0]["spec"]["containers"]
    (word, pause_s) = head["lifecycle"]["preStop"]["exec"]["command"]
    grace_s = ray_pods()[0]["spec"]["terminationGracePeriodSeconds"]
    assert word == "sleep"
    assert config.drain_s + config.notice_s < int(pause_s) < grace_s


def test_every_mount_in_a_ray_cluster_has_its_volume() -> None:
    for pod in ray_pods():
        volumes = {each["name"] for each in pod["spec"]["volumes"]}
        mounts = [each["volumeMounts"] for each in pod["spec"]["containers"]]
        assert {each["name"] for some in mounts for each in some} == volumes
        bundle = next(each for each in mounts[-1] if each["mountPath"] == "/bundle")
        assert bundle["readOnly"]


def test_everybody_in_a_ray_cluster_has_its_token() -> None:
    for pod in ray_pods():
        for each in pod["spec"]["containers"]:
            names = {variable["name"] for variable in each["env"]}
            assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= names


def test_manifests_are_kubernetes_own(tmp_path: Path) -> None:
    """Of KubeRay's kind, whose schema is not at hand, the pods."""
    validate = shutil.which("kubernetes-validate")
    assert validate is not None
    pods = tmp_path / "pods.yaml"
    pods.write_text(
        yaml.safe_dump_all(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"pod-{number}", **each["metadata"]},
                "spec": each["spec"],
            }
            for number, each in enumerate(ray_pods())
        )
    )
    for file in (DEPLOY / "kubernetes.yaml", pods):
        finished = subprocess.run(
            [validate, str(file)], capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr + finished.stdout


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    hadolint = shutil.which("hadolint")
    assert hadolint is not None
    finished = subprocess.run(
        [hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout
