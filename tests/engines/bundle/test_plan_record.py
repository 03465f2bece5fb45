"""A plan is for exactly what its spec says: whatever differs is another plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engines.bundle.plan_record import LibraryName, PlanOptionError, PlanOptions, PlanSpec
from engines.bundle.records import from_json, to_json
from engines.contract import Component, ShapeRanges

SHAPES: ShapeRanges = {"latents": ((1, 4, 8, 8), (1, 4, 8, 8), (2, 4, 8, 8))}
SPEC = PlanSpec(
    component=Component.TDM_UNET, profile="native", library=LibraryName.TENSORRT,
    version="11.4.0.106", architectures=(90,), onnx_digest="a", shapes=(SHAPES,),
    options=PlanOptions(),
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"component": Component.SDM_UNET},
        {"profile": "images"},
        {"library": LibraryName.TENSORRT_RTX},
        {"version": "11.4.0.107"},
        {"architectures": (89,)},
        {"architectures": (89, 90)},
        {"onnx_digest": "b"},
        {"shapes": (SHAPES, SHAPES)},
        {"shapes": ({"latents": ((1, 4, 8, 8),) * 3},)},
        {"options": PlanOptions(optimization_level=4)},
        {"options": PlanOptions(workspace_mib=1)},
        {"builder": SPEC.builder + 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_of_another_fact_is_another_plan(change: dict[str, Any]) -> None:
    other = replace(SPEC, **change)
    assert other != SPEC
    assert from_json(PlanSpec, to_json(other)) == other, "as a journal or a manifest keeps it"
    assert from_json(PlanSpec, to_json(SPEC)) == SPEC


@pytest.mark.parametrize(
    ("library", "version", "architectures", "target"),
    [
        (LibraryName.TENSORRT, "11.4.0.106", (90,), "sm_90"),
        (LibraryName.TENSORRT_RTX, "1.7.1.116", (), "rtx-1.7"),
        (LibraryName.TENSORRT_RTX, "1.7.1.116", (75,), "rtx-1.7.sm_75"),
        (LibraryName.TENSORRT_RTX, "1.7.1.116", (86, 89), "rtx-1.7.sm_86_89"),
    ],
)
def test_a_plans_name_says_what_it_is_for(
    library: LibraryName, version: str, architectures: tuple[int, ...], target: str
) -> None:
    spec = replace(SPEC, library=library, version=version, architectures=architectures)
    assert spec.target == target
    assert spec.path == f"plans/tdm_unet.native.{target}.plan"


@pytest.mark.parametrize(
    ("shapes", "is_static"),
    [
        ([((1, 4),) * 3], True),
        ([((1, 4), (1, 4), (2, 4))], False),
        ([((1, 4), (2, 4), (2, 4))], False),
        ([((1, 4),) * 3, ((2, 4),) * 3], False),
    ],
)
def test_a_plan_of_one_shape_is_static(shapes: list[Any], *, is_static: bool) -> None:
    spec = replace(SPEC, shapes=tuple({"latents": each} for each in shapes))
    assert spec.is_static is is_static


@pytest.mark.parametrize("level", [0, 5])
def test_the_first_and_last_optimization_level_are_taken(level: int) -> None:
    assert PlanOptions(optimization_level=level, workspace_mib=1).optimization_level == level


@pytest.mark.parametrize(
    "options", [{"optimization_level": 6}, {"optimization_level": -1}, {"workspace_mib": 0}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(PlanOptionError, match=f"{name}=.*expected"):
        PlanOptions(**options)
