"""The wheel as an application has it: one import name, whole, beside whatever else is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from face_diffuser import __version__
from tests.paths import GOLDEN, ROOT

pytestmark = pytest.mark.slow

HIM = ROOT / "examples" / "references" / "him.png"
# An application's own modules, of the names that our packages have in the repository.
OWN_MODULES = ("benchmarks", "engines", "examples", "export", "mini", "runtime", "server")
SMALL = ["--num-inference-steps", "3", "--height", "64", "--width", "64", "--seed", "1"]
WRONG_PROGRAM = """
from face_diffuser import FaceDiffuser, Request
FaceDiffuser.open("bundle").generate(Request(prompt=5, references=["him.jpg"]))
"""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """python: of an environment that has the wheel. folder: the application's, to run it in."""

    python: Path
    folder: Path

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the environment's python, which knows nothing of this checkout."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        finished = subprocess.run(
            [str(self.python), *words], cwd=self.folder, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert finished.returncode == code, finished.stdout + finished.stderr
        return finished


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "--wheel-dir", str(out), str(ROOT)], check=True)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that borrows what it depends on from this one.

    A path in a .pth file makes packages importable but runs none of the .pth files there, and an
    editable install of this checkout is such a file.
    """
    base = tmp_path_factory.mktemp("environment")
    venv.create(base, with_pip=False, symlinks=True)
    python = base / "bin" / "python"
    pip_install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip_install, "--quiet", str(wheel)], check=True)
    (packages,) = base.glob("lib/python*/site-packages")
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    (packages / "kernels.py").write_text("def get_kernel(name): return f'hub {name}'\n")
    folder = tmp_path_factory.mktemp("application")
    for name in OWN_MODULES:
        (folder / f"{name}.py").write_text("OWNER = 'the application'\n")
    shutil.copytree(ROOT / "examples" / "references", folder / "references")
    return Installed(python=python, folder=folder)


def test_the_wheel_holds_one_name_with_its_types_and_the_small_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top_level,) = (name for name in names if name.endswith(".dist-info/top_level.txt"))
        assert archive.read(top_level).split() == [b"face_diffuser"]
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"face_diffuser", top_level.partition("/")[0]}
    layout = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["face-diffuser"]["wheel"]
    below = {name.split("/")[1] for name in names if name.startswith("face_diffuser/")}
    modules = {"__init__.py", "__main__.py", "snf.py", "py.typed"}
    assert below == modules | set(layout["parts"]) | {"mini", "examples"}
    shipped = [path for folder in ("mini/model", "examples/references")
               for path in (ROOT / folder).rglob("*") if path.is_file()]  # fmt: skip
    data = {
        name
        for name in names
        if name.startswith(("face_diffuser/mini/", "face_diffuser/examples/"))
    }
    assert data == {f"face_diffuser/{path.relative_to(ROOT).as_posix()}" for path in shipped}
    assert {"index.html", "page.js"} <= {
        name.rpartition("/")[2] for name in names if name.startswith("face_diffuser/server/page/")
    }
    assert wheel.stat().st_size < 20e6


def test_an_application_keeps_its_own_names_and_imports_the_wheel(installed: Installed) -> None:
    names = ", ".join(OWN_MODULES)
    printed = installed.run(
        "-c",
        f"import face_diffuser, kernels, {names}\n"
        f"assert {{m.OWNER for m in ({names})}} == {{'the application'}}\n"
        "from face_diffuser.kernels import fuse_noise as ours\n"
        "from face_diffuser.snf import fuse_noise\n"
        "assert fuse_noise is ours\n"
        "print(kernels.get_kernel('activation'), face_diffuser.__file__)",
    ).stdout
    environment = installed.python.parents[1]
    assert printed.startswith(f"hub activation {environment}/lib/")


def test_the_application_draws(installed: Installed, golden_bundle: Path) -> None:
    words = ["a man <|image|>", "--reference", str(HIM), "--bundle", str(golden_bundle)]
    printed = installed.run("-m", "face_diffuser.runtime", *words, *SMALL, "--out", "one.png")
    assert printed.stdout.startswith("one.png: seed 1")
    installed.run("-m", "face_diffuser", "draw", *words, *SMALL, "--out", "two.png")
    assert (installed.folder / "one.png").read_bytes() == (
        installed.folder / "two.png"
    ).read_bytes()
    shutil.copy(ROOT / "examples" / "draw.py", installed.folder / "app.py")
    installed.run("app.py", str(golden_bundle), "3")
    with Image.open(installed.folder / "reading.png") as picture:
        assert picture.size == (512, 512)


def test_types_reach_the_application(installed: Installed) -> None:
    examples = [f"{name}.py" for name in ("draw", "cancel", "keep_identity", "maps", "own_thread")]
    folder = installed.folder / "typed"
    folder.mkdir()
    for name in examples:
        shutil.copy(ROOT / "examples" / name, folder / name)
    check = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache")]
    check += ["--python-executable", str(installed.python)]
    for words, code in ((examples, 0), (["-c", WRONG_PROGRAM], 1)):
        finished = subprocess.run(
            [*check, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert finished.returncode == code, finished.stdout
    assert 'Argument "prompt" to "Request" has incompatible type "int"' in finished.stdout


def test_commands_name_themselves_as_they_are_typed_here(
    installed: Installed, golden_bundle: Path
) -> None:
    for name in (
        "export.build",
        "engines.build",
        "engines.verify",
        "runtime",
        "export.bisect",
        "server",
    ):
        shown = installed.run("-m", f"face_diffuser.{name}", "--help").stdout
        assert f"usage: python -m face_diffuser.{name} " in shown
        assert "python -m engines" not in shown
    verified = installed.run("-m", "face_diffuser.engines.verify", str(golden_bundle))
    assert "files match their digests" in verified.stdout
    doctor = ["-m", "face_diffuser.runtime.doctor", "--json", "--bundle", "no-such-bundle"]
    findings = json.loads(installed.run(*doctor, code=1).stdout)["findings"]
    (fix,) = (each["fix"] for each in findings if each["about"] == "bundle")
    assert fix == "python -m face_diffuser.export.build --out no-such-bundle"
    console = str(installed.python.with_name("face-diffuser"))
    for words in ([console], ["-m", "face_diffuser"]):
        assert installed.run(*words, "--version").stdout == f"face-diffuser {__version__}\n"
    assert "usage: face-diffuser" in installed.run(console, "nonsense", code=2).stderr


def test_the_wheel_builds_a_bundle(installed: Installed, tmp_path: Path) -> None:
    parts = [("--base", "base"), ("--tdm", "TDM"), ("--sdm", "SDM")]
    parts += [("--image-encoder", "image_encoder")]
    words = [word for flag, name in parts for word in (flag, str(GOLDEN / name))]
    words += ["--architectures", "90", "--onnx-only", "--out", str(tmp_path / "bundle")]
    installed.run("-m", "face_diffuser.export.build", "--fp16", *words)
    with Image.open(tmp_path / "bundle" / "preview.png") as picture:
        picture.verify()
    shown = installed.run(
        "-c",
        "from face_diffuser.export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint\n"
        "print(Checkpoint.open(SHIPPED_MODEL).licenses()[0])",
    ).stdout
    assert shown == "mini/model/base: MIT, part of this repository\n"
