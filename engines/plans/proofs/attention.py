"""Proof that attention is fused: one layer of the engine for each Attention node of the graph.

Attention that is not fused writes its scores to memory, queries times keys of them for each head:
four times the memory of a whole U-Net at 512 px.
"""

from __future__ import annotations

from collections.abc import Sequence

from engines.bundle.plan_record import AttentionFusion
from engines.contract import Component
from engines.errors import PlanRefusedError
from engines.plans.building.job import PlanJob
from engines.plans.proofs.layers import EngineLayer
from engines.tensorrt import vendor
from engines.tensorrt.library import TensorRtRtx

# The decoder's one head is as wide as all its channels, and no fused kernel is.
MAY_BE_UNFUSED = (Component.VAE_DECODER,)
_OUTPUT_SUFFIX = "_AttentionOutput"


def attention_nodes(rtx: TensorRtRtx, network: vendor.INetworkDefinition) -> list[str]:
    """Names of the graph's Attention nodes, each of which was parsed into two layers."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return [
        layer.name.removesuffix(_OUTPUT_SUFFIX)
        for layer in layers
        if layer.type == rtx.LayerType.ATTENTION_OUTPUT
    ]


def proven_attention(
    nodes: Sequence[str], layers: Sequence[EngineLayer], job: PlanJob
) -> AttentionFusion:
    """Look for each node's own fused layer, in every optimization profile.

    Raises PlanRefusedError naming those that have none.
    """
    fused = [layer for layer in layers if layer.is_attention]
    # An engine has the layers of every optimization profile.
    wanted = len(job.spec.shapes)
    unfused = [node for node in nodes if sum(node in layer.nodes for layer in fused) < wanted]
    if unfused and job.spec.component not in MAY_BE_UNFUSED:
        raise PlanRefusedError(
            f"{job.name} computes {len(unfused)} of its {len(nodes)} attentions without a fused "
            f"layer, the first of them {unfused[0]}; the plan is not published; see {job.log}"
        )
    return AttentionFusion(
        nodes=len(nodes), fused=len(nodes) - len(unfused), unfused=tuple(unfused)
    )
