"""`python -m tests.fuzz.soak BUNDLE PROVIDER [COUNT]`: requests of all kinds, one after the other
for memory, then from four threads for people who must not mix."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from runtime import FaceDiffuser, FaceDiffuserError, Identity, OutputType, Request

_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")
_PEOPLE = [np.full((64, 48, 3), level, np.uint8) for level in (30, 120, 220)]


def resident_mib() -> float:
    """Memory of this process, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE_NBYTES / 2**20


def requests() -> list[Request]:
    """Kinds that differ in size, people, number, schedule, rule and what is given back."""
    common: dict[str, Any] = {
        "num_inference_steps": 3, "output_type": OutputType.NP, "height": 64, "width": 64,
    }  # fmt: skip
    one, two = "a man <|image|>", "a man <|image|> and a woman <|image|> in a park"
    kinds: list[dict[str, Any]] = [
        {"prompt": one, "references": _PEOPLE[:1]},
        {"prompt": one, "references": _PEOPLE[1:2]},
        {"prompt": two, "references": _PEOPLE[:2], "width": 128},
        {"prompt": two, "references": _PEOPLE[1:], "num_images": 2},
        {"prompt": one, "references": _PEOPLE[2:], "height": 128, "scheduler": "pndm"},
        {"prompt": one, "references": _PEOPLE[:1], "guidance_rule": "released", "saliency": True},
    ]
    return [Request(**common | kind, seed=number) for number, kind in enumerate(kinds)]


def soaked(face_diffuser: FaceDiffuser, count: int) -> list[float]:
    """Resident MiB after each tenth of so many requests, some cancelled, some refused."""
    random, kinds, resident = Random(5), requests(), []
    for number in range(count):
        request = random.choice(kinds)
        with contextlib.suppress(FaceDiffuserError):
            if number % 7 == 3:
                face_diffuser.generate(request, on_step=lambda info: info.step < 1)
            elif number % 7 == 5:
                face_diffuser.encode_reference(b"no photo")
            else:
                face_diffuser.generate(request)
        if (number + 1) % max(count // 10, 1) == 0:
            resident.append(resident_mib())
    return resident


def differing(face_diffuser: FaceDiffuser, count: int) -> int:
    """How many of so many mixed calls of four threads give something else than alone."""
    kinds = requests()
    alone = [face_diffuser.generate(each).array.copy() for each in kinds]
    people = [face_diffuser.encode_reference(each).embeds for each in _PEOPLE]

    def differs(number: int) -> bool:
        random = Random(number)
        if random.random() < 0.3:
            who = random.randrange(len(_PEOPLE))
            found: Identity = face_diffuser.encode_reference(_PEOPLE[who])
            return not np.array_equal(found.embeds, people[who])
        which = random.randrange(len(kinds))
        token = threading.Event()
        if random.random() < 0.1:
            token.set()
        try:
            images = face_diffuser.generate(kinds[which], cancel=token).array
        except FaceDiffuserError:
            return not token.is_set()
        return not np.array_equal(images, alone[which])

    with ThreadPoolExecutor(4) as threads:
        return sum(threads.map(differs, range(count)))


def main(bundle: str, provider: str, count: int = 300) -> int:
    with FaceDiffuser.open(bundle, provider=provider, threads=1) as face_diffuser:
        opened = resident_mib()
        resident = soaked(face_diffuser, count)
        told = " ".join(f"{each:.0f}" for each in resident)
        print(f"{provider}: {opened:.0f} MiB open; after each tenth of {count} requests: {told}")
        calls = count * 5 // 3
        wrong = differing(face_diffuser, calls)
        print(f"{provider}: {wrong} of {calls} calls of four threads differ")
    # Flat: what the second half adds is within what the allocator moves.
    grown = resident[-1] - resident[len(resident) // 2]
    return int(wrong > 0 or grown > 0.05 * resident[-1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
