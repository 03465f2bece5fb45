"""The bundle's cubins on this GPU, held against the formulas in numpy: no PyTorch, no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.schema.gpu import CheckRow
from benchmarks.schema.record import Status
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.manifest import NoiseSchedule
from engines.cuda.arena import Layout
from engines.cuda.driver import driver
from engines.cuda.gpu import Gpu, opened_gpu
from engines.cuda.launcher import KernelLibrary, Launch, opened_library
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule
from runtime.gpu.kernels import LatentsSize, Model, StepBuffers, StepKernels
from runtime.method.guidance import guided
from runtime.method.saliency import Fusion, fused_by_saliency
from runtime.method.schedule import (
    HISTORY_SLOTS,
    Column,
    coefficient_table,
    device_table,
)
from runtime.method.solvers import Scheduler

SCALE, STEPS = 5.0, 8
GUIDES = (TDM_GUIDE, SDM_GUIDES[GuidanceRule.PAPER])
# Nearer to a tie than this, float32 rounding decides a pixel; both sides round.
NEAR = 2e-6
# A dozen float32 roundings of values up to about 60.
LATENTS_TOLERANCE = 12 * 60 * 2.0**-24
SIZES = (
    LatentsSize(images=1, height=64, width=64),
    LatentsSize(images=2, height=64, width=96),
    LatentsSize(images=1, height=128, width=128),
)
QUICK_SIZES = (LatentsSize(images=1, height=8, width=16),)
_OUTPUTS = (
    "latents", "engine_latents", "tdm_saliency", "sdm_saliency", "mask", "clock", "timestep",
    "faults", "picture",
)  # fmt: skip

Arrays = dict[str, Any]


class NumpyTrial:
    """One step's tensors on the GPU with a pinned twin; every output starts as NaN or 255."""

    def __init__(self, gpu: Gpu, stack: ExitStack, library: KernelLibrary, size: LatentsSize):
        self.size, self._stream = size, gpu.stream(stack)
        element = np.dtype(library.manifest.element_type)
        shape = (size.images, size.channels, size.height, size.width)
        maps = (size.images, size.height, size.width)
        pixels = (size.images, 3, 8 * size.height, 8 * size.width)
        table = coefficient_table(Scheduler.DDIM, NoiseSchedule(), STEPS, SCALE)
        single, ints = np.dtype(np.float32), np.dtype(np.int32)
        self.table = device_table(table)
        self._layout = Layout(
            {
                "tdm": ((len(GUIDES[0].passes) * size.images, *shape[1:]), element),
                "sdm": ((len(GUIDES[1].passes) * size.images, *shape[1:]), element),
                "decoded": (pixels, element),
                "latents": (shape, single),
                "engine_latents": (shape, element),
                "history": ((HISTORY_SLOTS, *shape), single),
                "delta": (shape, single),
                "table": (self.table.shape, single),
                "clock": ((2,), ints),
                "timestep": ((size.images,), single),
                "faults": ((4,), ints),
                "tdm_saliency": (maps, single),
                "sdm_saliency": (maps, single),
                "sums": ((size.images, 4, size.height), single),
                "mask": (maps, np.dtype(np.uint8)),
                "picture": ((size.images, *pixels[2:], 3), np.dtype(np.uint8)),
            }
        )
        self._memory = gpu.memory(stack, self._layout.nbytes, "the kernels' tensors")
        self._pinned = gpu.pinned(stack, self._layout.nbytes, "the kernels' tensors")
        self._host = self._layout.on_host(self._pinned)
        self.tensors = self._layout.on_device(self._memory)
        random = np.random.RandomState(0)
        self.given: Arrays = {
            name: random.standard_normal(self._host[name].shape).astype(self._host[name].dtype)
            for name in ("tdm", "sdm", "decoded", "latents")
        } | {"table": self.table}
        addresses = {n: self.tensors[n].address for n in StepBuffers.__dataclass_fields__}
        self.kernels = StepKernels(
            library, size, StepBuffers(**addresses), table_rows=len(self.table), steps=STEPS
        )

    def address(self, name: str) -> int:
        return self.tensors[name].address

    def outputs(self, launches: tuple[Launch, ...]) -> Arrays:
        """Upload everything anew, run one first step, and copy back what it wrote."""
        for name, array in self._host.items():
            zeroed = name in ("clock", "faults")
            blank: Any = 0 if zeroed else (np.nan if array.dtype.kind == "f" else 255)
            array[...] = self.given.get(name, blank)
        self._stream.upload(self._memory.address, self._pinned.address, self._layout.nbytes)
        for launch in launches:
            launch.enqueue(self._stream.handle)
        self._stream.download(self._pinned.address, self._memory.address, self._layout.nbytes)
        self._stream.synchronize()
        return {name: self._host[name].copy() for name in _OUTPUTS}

    def fusion(self, kind: Fusion = Fusion.SALIENCY) -> tuple[Launch, ...]:
        predictions = (self.address("tdm"), self.address("sdm"))
        return self.kernels.fusion(predictions, GUIDES, kind, keep_saliency=True)

    def guided(self, model: Model) -> tuple[Launch, ...]:
        return self.kernels.guided(self.address(model.name.lower()), GUIDES[model], model)

    def pixels(self) -> tuple[Launch, ...]:
        return self.kernels.pixels(self.address("decoded"), self.address("picture"))


def checked_kernels(bundle: Bundle, *, quick: bool) -> Iterator[CheckRow]:
    """A row per kernel and size; one that is wrong is told as failed, and the others go on.

    Raises ProviderUnavailableError where there is no GPU or the bundle has no kernels for it.
    """
    with ExitStack() as stack:
        gpu = stack.enter_context(opened_gpu(driver("gpu")))
        folder = bundle.path / KERNELS_FOLDER
        library = stack.enter_context(opened_library(folder, gpu.architecture, gpu.driver))
        for size in QUICK_SIZES if quick else SIZES:
            with ExitStack() as own:
                trial = NumpyTrial(gpu, own, library, size)
                for kernel, wrong in faults_of(trial):
                    yield CheckRow(
                        kernel=kernel,
                        images=size.images,
                        height_px=8 * size.height,
                        width_px=8 * size.width,
                        status=Status.FAILED if wrong else Status.MEASURED,
                        reason="; ".join(wrong),
                    )


def faults_of(trial: NumpyTrial) -> Iterator[tuple[str, list[str]]]:
    """Each kernel's work, and what of its results is not what the formulas give."""
    tdm, sdm = (
        guided(trial.given[name].astype(np.float32), guide, SCALE)
        for name, guide in zip(("tdm", "sdm"), GUIDES, strict=True)
    )
    for model, expected in ((Model.TDM, tdm), (Model.SDM, sdm)):
        found = trial.outputs(trial.guided(model))
        yield f"guided step, {model.name}", _step_faults(trial, found, expected.noise)
    found = trial.outputs(trial.fusion())
    _, saliency = fused_by_saliency(tdm, sdm)
    mask = found["mask"] == 1
    margin = np.log(saliency.sdm.astype(np.float64)) - np.log(saliency.tdm.astype(np.float64))
    wrong = _step_faults(trial, found, np.where(mask[:, None], sdm.noise, tdm.noise))
    flipped = int((mask != saliency.mask)[np.abs(margin) > NEAR].sum())
    if flipped:
        wrong.append(f"{flipped} pixels of the mask are on the wrong side")
    yield "fusion by saliency", wrong
    found = trial.outputs(trial.fusion(Fusion.ADDITION))
    yield "fusion by addition", _step_faults(trial, found, (tdm.noise + sdm.noise) / 2)
    picture = trial.outputs(trial.pixels())["picture"]
    exact = np.rint(np.clip(trial.given["decoded"].astype(np.float64) / 2 + 0.5, 0, 1) * 255)
    differing = int((picture != exact.astype(np.uint8).transpose(0, 2, 3, 1)).sum())
    yield "pixels", [f"{differing} bytes differ"] if differing else []


def _step_faults(trial: NumpyTrial, found: Arrays, noise: Any) -> list[str]:
    row = trial.table[0].astype(np.float64)
    expected = row[Column.LATENTS] * trial.given["latents"] + row[Column.NOISE] * noise
    error = float(np.abs(found["latents"] - expected).max())
    wrong = [] if error <= LATENTS_TOLERANCE else [f"latents are {error:.1e} off"]
    for what, right in (
        ("engine latents", found["latents"].astype(found["engine_latents"].dtype)),
        ("clock", np.array([1, 0], np.int32)),
        ("timestep", np.full_like(found["timestep"], trial.table[1, Column.TIMESTEP])),
        ("faults", np.zeros(4, np.int32)),
    ):
        if not np.array_equal(found[what.replace(" ", "_")], right):
            wrong.append(f"{what} are wrong")
    return wrong
