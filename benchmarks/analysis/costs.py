"""Arithmetic and memory traffic of the components, counted on the meta device, where nothing runs.

FLOPs: two for a multiply-add, of convolutions, matrix products and attention. Bytes: the weights,
and each operation's inputs and outputs once. Fused kernels move less than the operations' bytes,
and none less than the weights, the inputs and the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from engines.bundle.manifest import Dimensions
from engines.contract import CONTRACTS, Component, ElementType
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from export.graph.modules import module_of
from export.source import ModelSource

# What a symbolic size of the contract is in a call, such as {"images": 1, "rows": 2, "h": 64}.
Sizes = dict[str, int]


@dataclass(frozen=True)
class Cost:
    """What one call costs; bytes by element count, to be multiplied by the element's size.

    flops: FLOP. weights: parameters. io: elements of inputs and outputs. operations: elements that
    all operations read and write, one by one.
    """

    flops: int
    weights: int
    io: int
    operations: int


class MetaSource:
    """A checkpoint's architecture without its weights: modules on the meta device."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def text_encoder(self) -> Any:
        return self._built(Component.TEXT_ENCODER, text_encoder_from)

    def image_encoder(self) -> Any:
        return self._built(Component.IMAGE_ENCODER, image_encoder_from)

    def fusion_mlp(self) -> Any:
        text = self._source.config(Component.TEXT_ENCODER)
        image = self._source.config(Component.IMAGE_ENCODER)
        vision = image.get("vision_config", image)
        width = text.get("text_config", text)["hidden_size"]
        subject = image.get("projection_dim", vision.get("projection_dim"))
        with torch.device("meta"):
            return FusionMLP(width, subject).eval()

    def unet(self, component: Component) -> Any:
        return self._built(component, unet_from)

    def vae_decoder(self) -> Any:
        return self._built(Component.VAE_DECODER, vae_from)

    def config(self, component: Component) -> dict[str, Any]:
        return self._source.config(component)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def _built(self, component: Component, build: Callable[[dict[str, Any]], nn.Module]) -> Any:
        with torch.device("meta"):
            return build(self._source.config(component)).eval()


def cost_of(
    component: Component, source: ModelSource, dimensions: Dimensions, sizes: Sizes
) -> Cost:
    """One call of a component, as the bundle's graph computes it."""
    module = module_of(component, MetaSource(source))
    inputs = meta_inputs(component, dimensions, sizes)
    return cost_of_call(module, inputs)


def cost_of_call(module: nn.Module, inputs: dict[str, Tensor]) -> Cost:
    """One call of any module on the meta device."""
    traffic = _Traffic()
    with torch.inference_mode(), FlopCounterMode(display=False) as flops, traffic:
        output = module(**inputs)
    tensors = [leaf for leaf in tree_leaves((inputs, output)) if isinstance(leaf, Tensor)]
    return Cost(
        flops=flops.get_total_flops(),
        weights=sum(parameter.numel() for parameter in module.parameters()),
        io=sum(tensor.numel() for tensor in tensors),
        operations=traffic.elements,
    )


def meta_inputs(component: Component, dimensions: Dimensions, sizes: Sizes) -> dict[str, Tensor]:
    """A component's inputs by tensor name, on the meta device."""
    types = {ElementType.INT32: torch.int32, ElementType.BOOL: torch.bool}
    inputs = {}
    for tensor in CONTRACTS[component].inputs:
        shape = [_size(size, dimensions, sizes) for size in tensor.shape]
        dtype = types.get(tensor.element_type, torch.float32)
        inputs[tensor.name] = torch.empty(shape, dtype=dtype, device="meta")
    return inputs


def _size(size: str | int, dimensions: Dimensions, sizes: Sizes) -> int:
    if isinstance(size, int):
        return size
    return sizes[size] if size in sizes else int(getattr(dimensions, size))


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the elements that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        is_view = any(each.alias_info is not None for each in function._schema.returns)
        if not is_view:
            leaves = tree_leaves((arguments, keywords, result))
            self.elements += sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))
        return result
