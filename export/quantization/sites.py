"""The products of a U-Net that can compute in 8 bits, and where in the network each lies."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from onnx import ModelProto, NodeProto

# Named weights say their block; a matrix whose transpose was folded has lost its name, and lies in
# the block of the named weight before it, because nodes come in the order of the network.
_BLOCK = re.compile(r"unet\.(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.")
# What takes little time and carries much: the first and the last convolution. And the timestep's
# embedding, which is one row for all pixels.
_ENDS = re.compile(r"unet\.(conv_in|conv_out|time_embedding\.\w+)\.weight")
# A matrix with more outputs for each input is a feed-forward's first one: eight (GEGLU).
_WIDENS = 4


class Kind(StrEnum):
    """What a site multiplies."""

    MATRIX = "matrix"
    CONVOLUTION = "convolution"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A node that multiplies an activation by a weight.

    node, activation, weight: names in the graph. block: such as "up_blocks.3". widens: whether its
    output is much larger than its activation, as a feed-forward's first matrix makes it.
    """

    node: str
    kind: Kind
    activation: str
    weight: str
    block: str
    widens: bool = False


def sites_of(model: ModelProto) -> list[Site]:
    """Every site of an exported U-Net inside its blocks, in the order of the graph."""
    weights = {each.name: each.dims for each in model.graph.initializer}
    found, block = [], None
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Conv", "Gemm") or node.input[1] not in weights:
            continue
        weight = node.input[1]
        named = _BLOCK.match(weight)
        block = named.group(1) if named else block
        if block is None or _ENDS.fullmatch(weight):
            continue
        kind = Kind.CONVOLUTION if node.op_type == "Conv" else Kind.MATRIX
        found.append(
            Site(
                node=node.name,
                kind=kind,
                activation=node.input[0],
                weight=weight,
                block=block,
                widens=kind is Kind.MATRIX and _widens(node, weights[weight]),
            )
        )
    return found


def output_axis(node: NodeProto, rank: int) -> int:
    """Which axis of its weight a product's output channels lie on."""
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else rank - 1


def _widens(node: NodeProto, shape: Sequence[int]) -> bool:
    outputs = shape[output_axis(node, len(shape))]
    inputs = math.prod(shape) // outputs
    return outputs > _WIDENS * inputs


def stored_sites(sites: list[Site], half: Sequence[str]) -> list[Site]:
    """The sites of blocks in half whose weights alone are in 8 bits: their matrices.

    A convolution's would be written out in half precision at each call. In the last block, where
    activations are largest, the builder would no longer join a matrix that widens with what
    follows, and need a tenth more memory for what it writes between them.
    """
    last = blocks_of(sites)[-1]
    return [
        site
        for site in sites
        if site.block in half
        and site.kind is Kind.MATRIX
        and not (site.block == last and site.widens)
    ]


def blocks_of(sites: list[Site]) -> list[str]:
    """The blocks that have sites, in the order of the network."""
    return list(dict.fromkeys(site.block for site in sites))
