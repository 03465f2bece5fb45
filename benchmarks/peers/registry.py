"""Who is compared: each peer's worker, its arguments, on which machines and work it can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.harness.worker import path_of
from benchmarks.peers.genai import genai_pipeline
from benchmarks.peers.in_torch import diffusers_pipeline, released
from benchmarks.peers.ours import bundle_backend
from benchmarks.peers.sessions import onnxruntime_session, openvino_session
from benchmarks.peers.work import WorkKind
from benchmarks.schema.peers import Device
from engines.bundle.quantization import Quantization
from engines.engine import HostPrecision, Provider

ALL_WORK = frozenset(WorkKind)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One side of a comparison; ours is one too.

    function: what its worker runs. arguments: beside work, inputs and threads. works: the kinds of
    work it can do. wants: what its function takes, "source" (the checkpoint), "folder" (plain
    exports), "hybrid" (those and what NNCF made of them), "genai" (a folder of OpenVINO GenAI's) or
    "bundle" (with its checkpoint). quick: whether it takes part in a quick run. isa: a processor
    flag that it needs to be more than an emulation. eight_bit: whether it is allowed as much error
    as ours in 8 bits.
    """

    name: str
    function: str
    arguments: Mapping[str, str | bool]
    wants: Literal["source", "folder", "hybrid", "genai", "bundle"]
    works: frozenset[WorkKind] = ALL_WORK
    quick: bool = False
    isa: str | None = None
    eight_bit: bool = False


def _torch(name: str, dtype: str, *, device: Device, compiled: bool = False, **more: Any) -> Peer:
    arguments: dict[str, str | bool] = {"device": device, "dtype": dtype, "compiled": compiled}
    function = path_of(released)
    return Peer(name=name, function=function, arguments=arguments, wants="source", **more)


OURS = "this toolkit"
OURS_ON_OPENVINO = "this toolkit on OpenVINO"
_BF16 = "avx512_bf16"


def peers(device: Device, *, eight_bit: bool = False) -> list[Peer]:
    """All that ours is compared with, the reference first.

    On the CPU the bundle takes part a second time, on OpenVINO. eight_bit: ours is in 8 bits, and
    both of the bundle's float32 sides and NNCF's 8 bits take part instead.
    """
    if device == "cuda":
        return _on_cuda()
    if not eight_bit:
        return [*_on_cpu(), ours(Provider.OPENVINO)]
    float32 = HostPrecision.FLOAT32
    own = [ours(Provider.ONNXRUNTIME_CPU), ours(Provider.OPENVINO, precision=float32)]
    return [*_on_cpu(), _HYBRID, *own]


def ours(
    provider: str,
    *,
    precision: HostPrecision | None = None,
    quantization: Quantization | None = None,
) -> Peer:
    """A bundle on one of its providers; precision: None is the one that was measured fastest."""
    words = [OURS_ON_OPENVINO if provider == Provider.OPENVINO else OURS]
    chosen: dict[str, str | bool] = {}
    if quantization is not None:
        words.append(quantization.value)
        chosen["quantization"] = quantization.value
    if precision is not None:
        words.append(precision.value)
        chosen["precision"] = precision.value
    return Peer(
        name=", ".join(words),
        function=path_of(bundle_backend),
        arguments={"provider": str(provider), **chosen},
        wants="bundle",
        quick=True,
    )


_SCENE = frozenset({WorkKind.SCENE})
# What takes long to prepare is not compared on the scene alone, which the trajectory holds.
_REST = ALL_WORK - _SCENE
_HYBRID = Peer(
    name="OpenVINO hybrid int8 (NNCF)",
    function=path_of(openvino_session),
    arguments={"precision": "f32", "hybrid": True},
    wants="hybrid",
    works=_REST,
    eight_bit=True,
)


def _on_cpu() -> list[Peer]:
    openvino = path_of(openvino_session)
    plain: dict[str, Any] = {"wants": "folder", "works": _REST}
    return [
        _torch("eager fp32", "fp32", device="cpu", quick=True),
        _torch("eager bf16", "bf16", device="cpu", quick=True, isa=_BF16),
        _torch("torch.compile fp32", "fp32", device="cpu", compiled=True, works=_REST),
        _torch("torch.compile bf16", "bf16", device="cpu", compiled=True, works=_REST, isa=_BF16),
        Peer(
            name="diffusers pipeline fp32", function=path_of(diffusers_pipeline), works=_SCENE,
            wants="source", arguments={"device": "cpu", "dtype": "fp32"},
        ),
        Peer(
            name="OpenVINO GenAI fp32", function=path_of(genai_pipeline), works=_SCENE,
            wants="genai", arguments={},
        ),
        Peer(
            name="ONNX Runtime, plain export", function=path_of(onnxruntime_session), arguments={},
            **plain,
        ),
        Peer(name="OpenVINO fp32", function=openvino, arguments={"precision": "f32"}, **plain),
        Peer(
            name="OpenVINO bf16", function=openvino, arguments={"precision": "bf16"}, isa=_BF16,
            **plain,
        ),
    ]  # fmt: skip


def _on_cuda() -> list[Peer]:
    return [
        _torch("eager fp32", "fp32", device="cuda", quick=True),
        _torch("eager fp16", "fp16", device="cuda", quick=True),
        _torch("eager bf16", "bf16", device="cuda"),
        _torch("torch.compile fp16", "fp16", device="cuda", compiled=True),
        Peer(
            name="diffusers pipeline fp16",
            function=path_of(diffusers_pipeline),
            works=frozenset({WorkKind.SCENE}),
            wants="source",
            arguments={"device": "cuda", "dtype": "fp16"},
        ),
    ]
