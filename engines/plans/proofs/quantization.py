"""Proof that a plan computes in 8 bits what its recipe asked for, by the layers of its build log.

What was asked comes from the recipe and never from the graph. Nodes of the graph are counted, not
layers of the engine: how the compiler joins nodes differs from one architecture to the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engines.bundle.plan_record import BuiltPlan, QuantizedLayers
from engines.errors import PlanRefusedError
from engines.plans.building.job import PlanJob
from engines.plans.proofs.layers import EngineLayer

_MULTIPLIES = re.compile(r"gemm|correlation", re.I)
_GEMM = re.compile(r"gemm", re.I)
# A product whose scale a later layer applies has the unquantized build's factor, 1, among its
# constants, named after its node. Its sum is in half before it is scaled, and exceeds 65504.
_FACTOR_OF_ONE = re.compile(r"_alpha_myl", re.I)
# An 8-bit plan's activation memory over half precision's. Stable Diffusion 1.5's take 0.96 to 1.12
# times as much in INT8 and 1.23 to 1.45 times in FP8, a few percent of what their weights save;
# with auxiliary streams, or with sums in single precision, twice to seven times.
MOST_ACTIVATIONS = 1.75


def proven_quantization(layers: Sequence[EngineLayer], job: PlanJob) -> QuantizedLayers | None:
    """Look for every node that was asked for in 8 bits; None where nothing was.

    Raises PlanRefusedError where one of them is in no 8-bit layer, where the sum of a product is
    scaled only after it was written, and where an 8-bit layer writes single precision. The weights
    of products in half are counted where the plan has them in 8 bits: where the builder joins
    matrices first, it keeps what it joined in half.
    """
    if not job.quantized_nodes:
        return None
    eight_bit = [
        layer for layer in layers if _MULTIPLIES.search(layer.kind) and layer.multiplies_eight_bits
    ]
    done = frozenset[str]().union(*(layer.nodes for layer in eight_bit))
    missing = [node for node in job.quantized_nodes if node not in done]
    unscaled = [
        layer
        for layer in eight_bit
        if _GEMM.search(layer.kind) and any(map(_FACTOR_OF_ONE.search, layer.constants))
    ]
    stored = frozenset[str]().union(
        *(layer.nodes for layer in layers if layer.has_eight_bit_constants)
    )
    wide = [layer for layer in eight_bit if any(each.is_wide for each in layer.outputs)]
    for wrong, first, what in (
        (missing, missing[:1], f"of {len(job.quantized_nodes)} products are not in 8 bits"),
        (
            unscaled,
            [each.name for each in unscaled[:1]],
            "products leave their sum unscaled in half",
        ),
        (wide, [each.name for each in wide[:1]], "8-bit layers write single precision"),
    ):
        if wrong:
            raise PlanRefusedError(
                f"{job.name}: {len(wrong)} {what}, the first of them {first[0]}; the plan is not "
                f"published; see {job.log}"
            )
    return QuantizedLayers(
        nodes=len(job.quantized_nodes),
        layers=len(eight_bit),
        stored=len(stored.intersection(job.stored_nodes)),
    )


def proven_activations(name: str, plan: BuiltPlan, half: BuiltPlan) -> None:
    """Hold an 8-bit plan's activation memory against that of the same plan in half precision.

    Raises PlanRefusedError where it is more than MOST_ACTIVATIONS times as much.
    """
    found, bound = plan.device_memory_nbytes, MOST_ACTIVATIONS * half.device_memory_nbytes
    if found > bound:
        raise PlanRefusedError(
            f"{name}: {found / 2**20:.1f} MiB of activations, expected at most {MOST_ACTIVATIONS} "
            f"times the {half.device_memory_nbytes / 2**20:.1f} MiB of the plan in half precision; "
            "the plan is not published"
        )
