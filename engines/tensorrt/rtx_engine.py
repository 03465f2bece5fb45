"""A plan of TensorRT for RTX as a DeviceEngine: its kernels are compiled where it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.engine import DeviceTensor, Provider
from engines.tensorrt import vendor, vendor_rtx
from engines.tensorrt.card_folder import CardFolder
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.library import TensorRt, TensorRtRtx, accepted, bytes_of, given


class RtxEngine(TensorRtEngine):
    """One context, with what it compiles kept in a runtime cache.

    Kernels are compiled for the shapes that are used before they run: what is captured into a graph
    stays as it was then. The library captures no graphs of its own, because the runtime captures
    whole steps.
    """

    provider = str(Provider.TENSORRT_RTX)
    # Until it is bound: then the library is asked.
    capturable = False

    def __init__(
        self,
        component: Component,
        trt: TensorRt,
        engine: vendor.ICudaEngine,
        *,
        cached: bytes,
        keep: Callable[[bytes], None],
    ) -> None:
        """cached: what was kept on this GPU and driver before; empty where nothing was.

        keep: takes the kernels that this context has, now and when it is closed, because some are
        compiled only where they first run. Compiles what is not in `cached`, which may take half a
        minute. Raises as TensorRtEngine does.
        """
        self._cached, self._keep = cached, keep
        self._cache: vendor_rtx.IRuntimeCache | None = None
        super().__init__(component, trt, engine)
        self._keep_compiled()

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        super().bind(tensors, workspace, stream)
        context = cast(vendor_rtx.RtxExecutionContext, self._context)
        self.capturable = context.is_stream_capturable(stream)

    def close(self) -> None:
        self._keep_compiled()
        super().close()
        self._cache = None

    def _keep_compiled(self) -> None:
        memory = None if self._cache is None else self._cache.serialize()
        if memory is not None:
            self._keep(bytes_of(memory))

    def _new_context(self, trt: TensorRt) -> vendor.IExecutionContext | None:
        rtx, engine = cast(TensorRtRtx, trt), cast(vendor_rtx.RtxCudaEngine, self._engine)
        config = given(engine.create_runtime_config(), f"a runtime config of {self._component}")
        config.set_execution_context_allocation_strategy(
            rtx.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        config.dynamic_shapes_kernel_specialization_strategy = (
            rtx.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        config.cuda_graph_strategy = rtx.CudaGraphStrategy.DISABLED
        self._cache = config.create_runtime_cache()
        if self._cache is not None:
            # Of another release or card it is not taken, and what is missing is compiled.
            if self._cached:
                self._cache.deserialize(self._cached)
            accepted(config.set_runtime_cache(self._cache), f"a cache for {self._component}")
        return engine.create_execution_context(config)


def opened_on_card(
    card: CardFolder, trt: TensorRt, engine: vendor.ICudaEngine, record: PlanRecord
) -> RtxEngine:
    """A context of a plan, with what a card has compiled for it; raises as RtxEngine does."""
    return RtxEngine(
        record.spec.component,
        trt,
        engine,
        cached=card.compiled(record),
        keep=partial(card.keep_compiled, record),
    )
