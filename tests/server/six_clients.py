"""Six clients at once, and bundles whose curve says whether calls of several pictures pay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from engines.bundle.folder import Bundle
from engines.engine import HostPrecision, Provider
from engines.tune.record import PROCESSORS_FOLDER, Conditions, TuneRecord, keep
from engines.tune.settings import CallTime, HostSettings
from runtime import FaceDiffuser, Request
from tests.server.serving import HER, HIM, PROMPT, Served, body, pixels, until

SUBLINEAR = {1: 1.0, 2: 1.2, 4: 1.6}
LINEAR = {1: 1.0, 2: 1.9, 4: 3.8}
_PHOTOS = [HER if seed % 2 else HIM for seed in range(6)]


def bundle_with_curve(bundle: Path, images_s: dict[int, float], copy: Path) -> Path:
    """A copy, with a record as engines.tune keeps: seconds of a call by its images."""
    shutil.copytree(bundle, copy, copy_function=os.link)
    shutil.rmtree(copy / PROCESSORS_FOLDER, ignore_errors=True)
    settings = HostSettings(
        provider=Provider.ONNXRUNTIME_CPU, precision=HostPrecision.FLOAT32, threads=1
    )
    call = CallTime(settings=settings, call_s=1.0, load_s=1.0, images_s=images_s)
    opened = Bundle.open(copy)
    keep(opened, TuneRecord(conditions=Conditions.of(opened), calls=(call,)))
    return copy


def pictures_of_six(server: Served, begun: Callable[[], bool]) -> list[Any]:
    """What six clients get, of whom five ask when the first one's picture has begun."""
    with ThreadPoolExecutor(6) as threads:
        people = [server.identity(photo) for photo in _PHOTOS]

        def ask(seed: int) -> httpx.Response:
            return server.draw(body(people[seed], seed=seed, num_inference_steps=10))

        first = threads.submit(ask, 0)
        until(begun)
        answers = [first.result(), *threads.map(ask, range(1, 6))]
    return [pixels(each.json()["images"][0]["b64_json"]).astype(np.int16) for each in answers]


def assert_as_drawn_alone(pictures: list[Any], bundle: Path) -> None:
    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as embedded:
        wanted = [
            embedded.generate(
                Request(
                    prompt=PROMPT, references=[photo], seed=seed, num_inference_steps=10,
                    height=64, width=64,
                )
            ).pictures[0]
            for seed, photo in enumerate(_PHOTOS)
        ]  # fmt: skip
    for at, picture in enumerate(pictures):
        # A value at the edge of two of 255 levels may fall to either side.
        assert np.abs(picture - np.asarray(wanted[at], np.int16)).max() <= 1
        assert np.abs(picture - np.asarray(wanted[(at + 2) % 6], np.int16)).max() > 20
