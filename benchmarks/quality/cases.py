"""What the quality benchmark draws: held-out people in settings, and the variants of the method."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from engines.bundle.manifest import Precision
from engines.bundle.quantization import Quantization
from engines.engine import HostPrecision
from engines.errors import FaceDiffuserError
from engines.providers import HOST_PROVIDERS
from engines.threads import processors
from mini.world import (
    ATTRIBUTES,
    Look,
    Setting,
    draw_picture,
    draw_portrait,
    plain_caption,
    random_look,
    random_setting,
)
from runtime import FaceDiffuser, Fusion, GuidanceRule, Provider, Request, Result, Scheduler
from runtime.inputs.identity import Identity

Pixels = npt.NDArray[np.uint8]
Found = TypeVar("Found")
STEPS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One picture to draw: who, where, and the photos that show who."""

    seed: int
    setting: Setting
    looks: tuple[Look, ...]
    photos: tuple[Pixels, ...]

    @property
    def prompt(self) -> str:
        """The caption that says everything, with a marker for each person."""
        return plain_caption(self.setting, tuple(look.kind for look in self.looks))

    def truth(self) -> Pixels:
        """The world's own picture of the case."""
        return draw_picture(self.setting, self.looks, random.Random(f"truth {self.seed}")).pixels


class Photos(StrEnum):
    """Which photos a picture is drawn from; all but the first are faults that scores should see.

    SWAPPED: of two people, each other's. OTHER_HAT: the first person wears another's hat.
    """

    OWN = "own"
    SWAPPED = "swapped"
    OTHER_HAT = "other hat"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row: what it is called, what it changes in the request, and who draws it.

    photos: what the runtime is shown. quantization: of the U-Nets.
    """

    name: str
    options: dict[str, Any]
    precision: Precision = Precision.FP16
    provider: Provider = Provider.ONNXRUNTIME_CPU
    computed_in: HostPrecision = HostPrecision.FLOAT32
    photos: Photos = Photos.OWN
    quantization: Quantization | None = None
    quick: bool = False


# What the other rows are compared with: the method as it is, and in the paper's number of steps.
BASE = Variant(name="full method", options={}, quick=True)
FULL = Variant(name="50 steps", options={"num_inference_steps": 50})


def cases(count: int) -> list[Case]:
    """Held-out people, one and two in turn, in every kind of setting; the same on each call."""
    return [case_of(seed) for seed in range(count)]


def case_of(seed: int, photos: Photos = Photos.OWN) -> Case:
    """One of `cases`, shown by these photos; they differ in nothing but what their name says."""
    rng = random.Random(f"quality {seed}")
    looks = tuple(random_look(rng, held_out=True) for _ in range(1 + seed % 2))
    shown = looks
    if photos is Photos.OTHER_HAT:
        hats = [each for each in ATTRIBUTES["hat"] if each not in ("none", looks[0].hat)]
        shown = (replace(looks[0], hat=hats[seed % len(hats)]), *looks[1:])
    drawn = tuple(draw_portrait(look, rng) for look in shown)
    if photos is Photos.SWAPPED:
        drawn = drawn[::-1]
    return Case(seed=seed, setting=random_setting(rng), looks=looks, photos=drawn)


def variants() -> list[Variant]:
    """The rows: the paper's Tables 3 and 4, its Figure 8, and this toolkit's own choices."""
    no_scene: dict[str, Any] = {"start_merge_step": -1}
    rows = [
        BASE,
        Variant(name="TDM alone", options={"alpha": 1.0, "beta": 1.0}, quick=True),
        Variant(name="SDM alone", options={"alpha": 0.0, "beta": 0.0}, quick=True),
        Variant(name="without scene construction", options=no_scene, quick=True),
        Variant(name="without subject-scene fusion", options={"beta": 0.3}, quick=True),
        Variant(name="without subject enhancement", options={"beta": 1.0}, quick=True),
        Variant(name="addition instead of SNF", options={"fusion": Fusion.ADDITION}, quick=True),
        Variant(name="released guidance rule", options={"guidance_rule": GuidanceRule.RELEASED}),
        Variant(name="PNDM", options={"scheduler": Scheduler.PNDM}),
        Variant(
            name="PNDM, 50 steps",
            options={"scheduler": Scheduler.PNDM, "num_inference_steps": 50},
        ),
        Variant(name="10 steps", options={"num_inference_steps": 10}),
        FULL,
        Variant(name="fp32 bundle", options={}, precision=Precision.FP32),
    ]
    if HostPrecision.BFLOAT16 in HOST_PROVIDERS[Provider.OPENVINO].precisions():
        rows.append(
            Variant(
                name="OpenVINO, bfloat16",
                options={},
                provider=Provider.OPENVINO,
                computed_in=HostPrecision.BFLOAT16,
                quick=True,
            )
        )
    rows += [
        Variant(name=str(each).upper(), options={}, quantization=each) for each in Quantization
    ]
    rows += [
        Variant(name=f"alpha {alpha}", options={"alpha": alpha})
        for alpha in (0.0, 0.1, 0.2, 0.4, 0.5, 0.6)
    ]
    rows += [
        Variant(name=f"beta {beta}", options={"beta": beta}) for beta in (0.4, 0.5, 0.7, 0.8, 0.9)
    ]
    return rows


class UnknownRowError(FaceDiffuserError):
    """A row is asked for that there is not."""


def chosen_of(
    listed: Sequence[Variant], rows: Sequence[str], *, quick: bool, always: Sequence[str]
) -> list[Variant]:
    """The variants that are asked for, in their order. always: what the others are beside.

    Raises UnknownRowError for a row that there is not.
    """
    unknown = sorted({*rows} - {each.name for each in listed})
    if unknown:
        raise UnknownRowError(
            f"there is no row {unknown[0]!r}; take of: {', '.join(each.name for each in listed)}"
        )
    if rows:
        return [each for each in listed if each.name in {*always, *rows}]
    return [each for each in listed if each.quick or not quick]


def drawn(
    face_diffuser: FaceDiffuser,
    listed: list[Case],
    options: dict[str, Any],
) -> Iterator[Result]:
    """One result per case."""
    people: dict[int, list[Identity]] = {}
    for case in listed:
        if case.seed not in people:
            people[case.seed] = [face_diffuser.encode_reference(photo) for photo in case.photos]
        request = Request(
            prompt=case.prompt,
            references=people[case.seed],
            seed=case.seed,
            **{"num_inference_steps": STEPS, **options},
        )
        yield face_diffuser.generate(request)


def in_parallel(
    work: Callable[[Variant], Found], chosen: Sequence[Variant]
) -> Iterator[tuple[str, Found]]:
    """What the work finds of each variant, in their order; a process for each core does one."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors(), mp_context=spawn) as pool:
        jobs = [pool.submit(work, variant) for variant in chosen]
        for variant, job in zip(chosen, tqdm(jobs, unit="variant"), strict=True):
            yield variant.name, job.result()
