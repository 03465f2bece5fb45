"""`python -m tests.fuzz.kills FOLDER [COUNT] [SEED]`: builds and rebuilds killed at random times.

The golden vectors' tiny checkpoint, built into FOLDER/bundle. After each kill a bundle that was
whole must still open and verify; finished, its files must be those of a build that nobody killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME
from tests.paths import GOLDEN, ROOT

_PARTS = [
    word
    for flag, part in (("base", "base"), ("tdm", "TDM"), ("sdm", "SDM"))
    for word in (f"--{flag}", str(GOLDEN / part))
] + ["--image-encoder", str(GOLDEN / "image_encoder")]


def build(bundle: Path, precision: str) -> subprocess.Popen[bytes]:
    """A build in a process group of its own, so that its children are killed with it."""
    command = [sys.executable, "-m", "export.build", precision, "--onnx-only", "--out", str(bundle)]
    return subprocess.Popen(
        [*command, *_PARTS, "--architectures", "90"], cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def digests(bundle: Path) -> dict[str, str]:
    """Of every file of a whole bundle but its preview, by its name; raises BundleError."""
    opened = Bundle.open(bundle)
    opened.verify()
    return {name: record.sha256 for name, record in opened.manifest.all_files().items()}


def _killed(process: subprocess.Popen[bytes], after_s: float, random: Random) -> bool:
    """Kill a build some time after its start; False if it ended before."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        if random.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.send_signal(random.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)))
        process.wait()
        return True
    return False


def main(folder: Path, count: int = 100, seed: int = 13) -> int:
    random, bundle = Random(seed), folder / "bundle"
    wanted, took_s = {}, 0.0
    for precision in ("--fp16", "--fp32"):
        start = time.monotonic()
        whole = folder / precision.strip("-")
        assert build(whole, precision).wait() == 0, f"{precision} cannot be built at all"
        wanted[precision] = digests(whole)
        took_s = time.monotonic() - start
    kills = ends = lost = other = 0
    precisions: Sequence[str] = ("--fp16", "--fp32")
    while kills < count:
        # One way and then the other: a build from nothing, then rebuilds of what is there.
        precision = precisions[ends % 2]
        there = digests(bundle) if (bundle / MANIFEST_NAME).is_file() else None
        process = build(bundle, precision)
        if _killed(process, random.uniform(0, 1.1 * took_s), random):
            kills += 1
            if there is not None:
                try:
                    lost += digests(bundle) not in (there, wanted[precision])
                except Exception as error:
                    print(f"kill {kills} lost the bundle: {error}")
                    lost += 1
        else:
            ends += 1
            if process.returncode or digests(bundle) != wanted[precision]:
                other += 1
            if ends % 4 == 0:
                shutil.rmtree(bundle)
        print(f"{kills} kills, {ends} ends, {lost} lost, {other} other digests", flush=True)
    return int(lost > 0 or other > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
