"""The fusion kernels, in the interpreter, against the float64 reference and the numpy twin."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from engines.guides import TDM_GUIDE, GuidanceRule
from runtime.method.guidance import guided
from runtime.method.saliency import fused_by_addition, fused_by_saliency
from runtime.method.schedule import Column, updated_latents
from runtime.method.solvers import Scheduler
from tests.kernels.trial import (
    LATE_STEP,
    SCALE,
    Data,
    Output,
    Trial,
    addition,
    fusion,
    trial,
)
from tests.references import snf as reference

# Nearer to a tie than this, float32 rounding decides (largest seen: 8.9e-7).
NEAR = 1e-6
# A dozen float32 roundings of values up to about 60 (scale 5 times a difference of normals).
LATENTS_TOLERANCE = 12 * 60 * 2.0**-24
# A softmax over up to 9216 pixels: sums and exponents of values up to 20.
SALIENCY_TOLERANCE = 1e-4

FUSING = [rule for rule in GuidanceRule if rule.fuses]
# Two images, small for the interpreter's sake.
SIZE = (2, 16, 24)


def assert_fused(case: Trial, out: Output) -> None:
    """Everything a fusion step writes is the reference's, wherever no near tie decides."""
    tdm, sdm = case.guided()
    expected = reference.snf(tdm, sdm)
    mask = out.mask.numpy() == 1
    assert set(np.unique(out.mask.numpy())) <= {0, 1}
    assert not (mask != expected.mask)[np.abs(expected.margin) > NEAR].any()

    noise = np.where(mask[:, None], sdm[0], tdm[0])
    stepped = case.stepped(noise)
    np.testing.assert_allclose(out.latents.numpy(), stepped, rtol=0, atol=LATENTS_TOLERANCE)
    np.testing.assert_allclose(out.tdm.numpy(), expected.tdm, rtol=SALIENCY_TOLERANCE)
    np.testing.assert_allclose(out.sdm.numpy(), expected.sdm, rtol=SALIENCY_TOLERANCE)
    assert_engine_latents(out)
    assert_kept(case, out, noise)
    assert out.clock.tolist() == [LATE_STEP + 1, 0]


def assert_engine_latents(out: Output) -> None:
    """The engines' input is the latents in their type."""
    expected = out.latents.to(out.engine_latents.dtype)
    if out.engine_latents.dtype is torch.bfloat16:
        # The interpreter truncates to bfloat16 where GPUs round: one unit in the last of 8 bits.
        torch.testing.assert_close(out.engine_latents, expected, rtol=2.0**-7, atol=0)
    else:
        assert torch.equal(out.engine_latents, expected)


def assert_kept(case: Trial, out: Output, noise: np.ndarray) -> None:
    """The noise went to its slot of the history, and nothing else changed there."""
    slot = int(case.row[Column.KEEP_SLOT])
    for other in {0, 1, 2} - {slot}:
        assert torch.equal(out.history[other], case.history[other])
    if slot >= 0:
        np.testing.assert_allclose(out.history[slot].numpy(), noise, rtol=0, atol=LATENTS_TOLERANCE)


@pytest.mark.parametrize("data", [Data.WHITE, Data.CORRELATED])
@pytest.mark.parametrize("rule", FUSING)
def test_fusion_equals_the_paper(rule: GuidanceRule, data: Data) -> None:
    case = trial(data, SIZE, rule=rule)
    assert_fused(case, fusion(case))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_engine_type_is_taken(dtype: torch.dtype) -> None:
    case = trial(Data.WHITE, SIZE, dtype=dtype)
    assert_fused(case, fusion(case))


def test_near_ties_flip_only_within_rounding() -> None:
    case = trial(Data.NEAR_TIE, SIZE, dtype=torch.float32)
    assert_fused(case, fusion(case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_tie_goes_to_the_scene(dtype: torch.dtype) -> None:
    case = trial(Data.TIE, SIZE, dtype=dtype)
    assert not fusion(case).mask.any()


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 64, 64), (1, 72, 40), (1, 24, 96), (1, 16, 136)])
def test_any_size_is_fused(size: tuple[int, int, int]) -> None:
    case = trial(Data.CORRELATED, size)
    assert_fused(case, fusion(case))


def test_sizes_no_bundle_has_show_the_borders() -> None:
    case = trial(Data.WHITE, (1, 13, 21), dtype=torch.float32)
    assert_fused(case, fusion(case))


def test_sixteen_images_do_not_mix() -> None:
    case = trial(Data.WHITE, (16, 8, 8))
    assert_fused(case, fusion(case))


def test_ddim_reads_and_keeps_no_history() -> None:
    case = trial(Data.WHITE, (1, 64, 64), scheduler=Scheduler.DDIM)
    case.history.fill_(float("nan"))
    out = fusion(case)
    assert torch.isfinite(out.latents).all()
    assert torch.isnan(out.history).all()


def test_saliency_is_written_on_request_alone() -> None:
    case = trial(Data.WHITE, SIZE)
    asked, silent = fusion(case), fusion(case, keep_saliency=False)
    assert torch.equal(asked.latents, silent.latents)
    assert (silent.mask == 255).all()


@pytest.mark.parametrize("rule", FUSING)
def test_addition_is_the_mean_of_both_noises(rule: GuidanceRule) -> None:
    case = trial(Data.WHITE, (2, 24, 40), rule=rule)
    out = addition(case)
    noise = reference.addition(*case.guided())
    np.testing.assert_allclose(
        out.latents.numpy(), case.stepped(noise), rtol=0, atol=LATENTS_TOLERANCE
    )
    assert_kept(case, out, noise)
    assert (out.mask == 255).all()


@pytest.mark.parametrize("data", [Data.WHITE, Data.CORRELATED, Data.NEAR_TIE])
def test_kernels_and_the_host_twin_agree(data: Data) -> None:
    case = trial(data, (1, 64, 64), dtype=torch.float32)
    tdm = guided(case.tdm.numpy(), TDM_GUIDE, SCALE)
    sdm = guided(case.sdm.numpy(), case.sdm_guide, SCALE)
    noise, saliency = fused_by_saliency(tdm, sdm)
    row = case.table[LATE_STEP].numpy()
    stepped = updated_latents(case.latents.numpy(), noise, case.history.numpy().copy(), row)
    margin = np.abs(reference.snf(*case.guided()).margin)
    out = fusion(case)
    differ = (out.mask.numpy() == 1) != saliency.mask
    assert not differ[margin > NEAR].any()
    agree = ~np.broadcast_to(differ[:, None], stepped.shape)
    np.testing.assert_allclose(
        out.latents.numpy()[agree], stepped[agree], rtol=0, atol=2 * LATENTS_TOLERANCE
    )


def test_the_host_twin_equals_the_paper() -> None:
    case = trial(Data.CORRELATED, (2, 24, 40), dtype=torch.float32)
    tdm = guided(case.tdm.numpy(), TDM_GUIDE, SCALE)
    sdm = guided(case.sdm.numpy(), case.sdm_guide, SCALE)
    expected = reference.snf(*case.guided())
    _, saliency = fused_by_saliency(tdm, sdm)
    assert not (saliency.mask != expected.mask)[np.abs(expected.margin) > NEAR].any()
    np.testing.assert_allclose(saliency.tdm, expected.tdm, rtol=SALIENCY_TOLERANCE)
    np.testing.assert_allclose(saliency.sdm, expected.sdm, rtol=SALIENCY_TOLERANCE)
    np.testing.assert_allclose(
        fused_by_addition(tdm, sdm),
        reference.addition(*case.guided()),
        rtol=0,
        atol=LATENTS_TOLERANCE,
    )


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, of which the interpreter is made
@pytest.mark.parametrize(
    ("combined", "value"),
    [(fusion, float("nan")), (fusion, float("-inf")), (addition, float("inf"))],
)
def test_the_first_prediction_that_is_not_finite_is_on_record(
    combined: Callable[..., Output], value: float
) -> None:
    # Only the pass where SDM's noise starts: it is in no saliency map, and TDM may win the pixel.
    case = trial(Data.WHITE, (1, 8, 8))
    case.sdm[0, 2, 5, 7] = value
    assert combined(case).faults.tolist() == [0, LATE_STEP + 1, 0, 0]
    case.tdm[1, 0, 7, 7] = value
    assert combined(case).faults.tolist() == [LATE_STEP + 1, LATE_STEP + 1, 0, 0]
