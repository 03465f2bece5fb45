"""The bundle's cubins through the launcher, against the plain twins: numpy and the driver alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from benchmarks.device.kernels import (
    GUIDES,
    LATENTS_TOLERANCE,
    NEAR,
    SCALE,
    STEPS,
    NumpyTrial,
)
from engines.bundle.folder import KERNELS_FOLDER
from engines.bundle.manifest import NoiseSchedule
from engines.cuda.gpu import opened_gpu
from engines.cuda.launcher import opened_library
from engines.guides import Pass
from runtime.gpu.kernels import LatentsSize, Model
from runtime.method.guidance import SubjectGuidance
from runtime.method.saliency import Fusion
from runtime.method.schedule import HISTORY_SLOTS, Column, coefficient_table, device_table
from runtime.method.solvers import Scheduler
from tests.gpu.conftest import Machine
from tests.references import guidance, snf
from tests.references import pixels as pixels_reference

# A softmax over up to 9216 pixels: sums and exponents of values up to 20.
SALIENCY_TOLERANCE = 1e-4
LATE_STEP = 6  # all of PNDM's history is in use

SIZES = {
    True: (LatentsSize(images=1, height=64, width=64), LatentsSize(images=2, height=64, width=96)),
    False: (LatentsSize(images=2, height=8, width=16),),
}


class Twin(NumpyTrial):
    """A late step of PNDM, with what the references say of it."""

    def prepare(self, relation: str) -> None:
        """relation: how the two models' predictions relate."""
        table = coefficient_table(Scheduler.PNDM, NoiseSchedule(), STEPS, SCALE)
        self.table = device_table(table)[: len(self.table)]
        random = np.random.RandomState(1)
        shape = (HISTORY_SLOTS, *self.given["latents"].shape)
        self.given |= {
            "table": self.table,
            "clock": np.array([LATE_STEP, 0], np.int32),
            "history": random.standard_normal(shape).astype(np.float32),
            "delta": random.standard_normal(shape[1:]).astype(np.float32),
        }
        sdm = self._passes("sdm", GUIDES[1].passes)
        tdm = self._passes("tdm", GUIDES[0].passes)
        if relation != "white":
            # The same guidance, turned round; nearly the same, where it is only near a tie.
            turned = tdm[Pass.NULL]
            if relation == "near tie":
                turned = turned * (1 + 1e-3 * sdm[Pass.AUGMENTED])
            sdm |= {Pass.TEXT: tdm[Pass.TEXT], Pass.AUGMENTED: turned}
            element = self.given["sdm"].dtype
            self.given["sdm"] = np.concatenate([sdm[p] for p in GUIDES[1].passes]).astype(element)

    def models(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """(guided noise, guidance) of both, float64, from the values that the engines gave."""
        tdm = self._passes("tdm", GUIDES[0].passes)
        sdm = self._passes("sdm", GUIDES[1].passes)
        return guidance.tdm_guided(tdm[Pass.NULL], tdm[Pass.TEXT], SCALE), (
            guidance.sdm_guided_paper(sdm[Pass.NULL], sdm[Pass.TEXT], sdm[Pass.AUGMENTED], SCALE)
        )

    def assert_stepped(self, found: dict[str, Any], noise: Any) -> None:
        """What a step writes whatever its noise is, and the latents after it."""
        row = self.table[LATE_STEP].astype(np.float64)
        weights = row[Column.HISTORY_0 : Column.HISTORY_0 + HISTORY_SLOTS]
        kept = np.tensordot(weights, self.given["history"].astype(np.float64), axes=1)
        expected = row[Column.LATENTS] * self.given["latents"] + row[Column.NOISE] * noise + kept
        np.testing.assert_allclose(found["latents"], expected, rtol=0, atol=LATENTS_TOLERANCE)
        in_type = found["latents"].astype(found["engine_latents"].dtype)
        np.testing.assert_array_equal(found["engine_latents"], in_type)
        assert found["clock"].tolist() == [LATE_STEP + 1, 0]
        assert (found["timestep"] == self.table[LATE_STEP + 1, Column.TIMESTEP]).all()
        assert not found["faults"].any()

    def _passes(self, model: str, passes: tuple[Pass, ...]) -> dict[Pass, Any]:
        by_pass = (
            self.given[model]
            .astype(np.float64)
            .reshape(len(passes), self.size.images, *self.given["latents"].shape[1:])
        )
        return dict(zip(passes, by_pass, strict=True))


@pytest.fixture(scope="module", params=[0, 1], ids=["one size", "another"])
def twin(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Twin]:
    sizes = SIZES[machine.real]
    with ExitStack() as stack:
        gpu = stack.enter_context(opened_gpu(machine.driver))
        folder = machine.bundle / KERNELS_FOLDER
        library = stack.enter_context(opened_library(folder, gpu.architecture, gpu.driver))
        yield Twin(gpu, stack, library, sizes[request.param % len(sizes)])


@pytest.mark.parametrize("relation", ["white", "near tie", "tie"])
def test_fusion_by_saliency_is_the_papers(relation: str, twin: Twin) -> None:
    twin.prepare(relation)
    found = twin.outputs(twin.fusion())
    tdm, sdm = twin.models()
    expected = snf.snf(tdm, sdm)
    mask = found["mask"] == 1
    assert set(np.unique(found["mask"])) <= {0, 1}
    assert not (mask != expected.mask)[np.abs(expected.margin) > NEAR].any()
    if relation == "tie":
        assert not mask.any(), "a tie goes to TDM"
    np.testing.assert_allclose(found["tdm_saliency"], expected.tdm, rtol=SALIENCY_TOLERANCE)
    np.testing.assert_allclose(found["sdm_saliency"], expected.sdm, rtol=SALIENCY_TOLERANCE)
    twin.assert_stepped(found, np.where(mask[:, None], sdm[0], tdm[0]))


def test_fusion_by_addition_is_the_mean(twin: Twin) -> None:
    twin.prepare("white")
    twin.assert_stepped(twin.outputs(twin.fusion(Fusion.ADDITION)), snf.addition(*twin.models()))


@pytest.mark.parametrize("model", [Model.TDM, Model.SDM])
def test_a_guided_step_is_the_papers(model: Model, twin: Twin) -> None:
    twin.prepare("white")
    twin.assert_stepped(twin.outputs(twin.guided(model)), twin.models()[model][0])


def test_a_step_adds_the_guidance_that_was_kept(twin: Twin) -> None:
    twin.prepare("white")
    guide = GUIDES[Model.SDM]
    launches = twin.kernels.guided(twin.address("sdm"), guide, Model.SDM, SubjectGuidance.CACHED)
    start = twin.given["sdm"].astype(np.float64).reshape(-1, *twin.given["latents"].shape)
    by_itself = start[guide.start] + SCALE * (start[guide.target] - start[guide.base])
    twin.assert_stepped(twin.outputs(launches), by_itself + twin.given["delta"])


def test_pictures_are_rounded_as_the_reference_rounds(twin: Twin) -> None:
    twin.prepare("white")
    found = twin.outputs(twin.pixels())["picture"]
    expected = pixels_reference.pixels(twin.given["decoded"].astype(np.float64))
    np.testing.assert_array_equal(found, expected)
    assert not twin.outputs(twin.pixels())["faults"].any()


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy
def test_a_number_that_is_none_is_recorded_with_its_step(twin: Twin) -> None:
    twin.prepare("white")
    twin.given["tdm"].reshape(-1)[-1] = np.nan
    try:
        assert twin.outputs(twin.guided(Model.TDM))["faults"].tolist()[:2] == [LATE_STEP + 1, 0]
    finally:
        twin.given["tdm"].reshape(-1)[-1] = 0
