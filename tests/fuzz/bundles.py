"""`python -m tests.fuzz.bundles BUNDLE [COUNT] [SEED]`: damaged bundles opened and drawn."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME
from runtime import FaceDiffuser, FaceDiffuserError, OutputType, Request
from tests.fuzz.damage import DAMAGES

Picture = np.ndarray[Any, Any]
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 1e30, -0.5, 10**400, "", "nonsense", "../x", "/etc/passwd",
    [], [1], {}, {"a": 1}, [[[]]],
]  # fmt: skip


def _write(path: Path, content: bytes) -> None:
    """A new file in the place of a link to the whole bundle's."""
    path.unlink()
    path.write_bytes(content)


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    if path:
        yield path
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in pairs:
        if isinstance(value, dict | list):
            yield from _places(value, (*path, name))
        else:
            yield (*path, name)


def _manifest_value(bundle: Path, random: Random) -> str:
    """One value of the manifest replaced, deleted, moved a little or exchanged with another."""
    path = bundle / MANIFEST_NAME
    document = json.loads(path.read_text())
    *parents, last = random.choice(list(_places(document)))
    at = document
    for each in parents:
        at = at[each]
    how = random.choice(("replaced", "deleted", "moved", "exchanged"))
    if how == "deleted":
        del at[last]
    elif how == "moved" and isinstance(at[last], int | float) and not isinstance(at[last], bool):
        at[last] *= random.choice((0.5, 0.9, 1.1, 2, -1))
    elif how == "exchanged":
        other = random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
        at[last], at[other] = at[other], at[last]
    else:
        at[last] = random.choice(_VALUES)
    if random.random() < 0.2:
        document.pop("digest", None)
    _write(path, json.dumps(document).encode())
    return f"manifest: {how} {'.'.join(map(str, (*parents, last)))}"


def _manifest_bytes(bundle: Path, random: Random) -> str:
    path = bundle / MANIFEST_NAME
    if random.random() < 0.1:
        text = random.choice(("", "[" * 100_000, "{}", "null", '{"schema_version": 4}'))
        _write(path, text.encode())
        return "manifest: no manifest at all"
    damage = random.choice(list(DAMAGES))
    _write(path, DAMAGES[damage](path.read_bytes(), random))
    return f"manifest: {damage}"


def _file_bytes(bundle: Path, random: Random) -> str:
    path = random.choice(_files(bundle))
    damage = random.choice(list(DAMAGES))
    _write(path, DAMAGES[damage](path.read_bytes() or b"\0", random))
    return f"{path.relative_to(bundle)}: {damage}"


def _files_exchanged(bundle: Path, random: Random) -> str:
    first, second = random.sample(_files(bundle), 2)
    contents = first.read_bytes(), second.read_bytes()
    _write(second, contents[0])
    _write(first, contents[1])
    return f"{first.relative_to(bundle)} and {second.relative_to(bundle)} exchanged"


def _file_gone(bundle: Path, random: Random) -> str:
    path = random.choice(_files(bundle))
    path.unlink()
    how = random.choice(("missing", "a folder", "a dangling link", "a link to another"))
    if how == "a folder":
        path.mkdir()
    elif how == "a dangling link":
        path.symlink_to(bundle / "nowhere")
    elif how == "a link to another":
        path.symlink_to(random.choice(_files(bundle)))
    return f"{path.relative_to(bundle)}: {how}"


def _files(bundle: Path) -> list[Path]:
    """Files of a bundle; manifests have their own damages."""
    found = sorted(path for path in bundle.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in found if path.name != MANIFEST_NAME]


_DAMAGES: list[Callable[[Path, Random], str]] = [
    _manifest_value, _manifest_value, _manifest_bytes, _file_bytes, _files_exchanged, _file_gone,
]  # fmt: skip


@contextmanager
def _damaged(bundle: Path, random: Random) -> Iterator[tuple[Path, str]]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        copy = folder / "bundle"
        without_build = shutil.ignore_patterns("build")
        shutil.copytree(bundle, copy, ignore=without_build, copy_function=os.link)
        yield copy, random.choice(_DAMAGES)(copy, random)
    finally:
        shutil.rmtree(folder)


def drawn(bundle: Path) -> Picture:
    """Two people in three steps, one of each stage."""
    photos = [np.full((64, 64, 3), level, np.uint8) for level in (40, 200)]
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as face_diffuser:
        request = Request(
            prompt="a man <|image|> and a woman <|image|> in a park", references=photos, seed=1,
            num_inference_steps=3, height=64, width=64, output_type=OutputType.NP,
        )  # fmt: skip
        picture: Picture = face_diffuser.generate(request).array
        return picture


def outcome(bundle: Path, damage: str, whole: Picture) -> str:
    """What came of one damaged bundle; a fault begins with FAULT."""
    try:
        picture = drawn(bundle)
        Bundle.open(bundle).verify()
    except FaceDiffuserError as error:
        return f"refused ({type(error).__name__})"
    except Exception as error:
        return f"FAULT: {type(error).__name__} by {damage}"
    return "the same picture" if np.array_equal(picture, whole) else f"FAULT: another by {damage}"


def main(bundle: Path, count: int = 560, seed: int = 13) -> Counter[str]:
    random, whole = Random(seed), drawn(bundle)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        with _damaged(bundle, random) as (copy, damage):
            outcomes[outcome(copy, damage, whole)] += 1
    return outcomes


if __name__ == "__main__":
    tally = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    print(*(f"{count:6} {found}" for found, count in sorted(tally.items())), sep="\n")
    sys.exit(any(found.startswith("FAULT") for found in tally))
