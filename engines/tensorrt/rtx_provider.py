"""Plans of TensorRT for RTX: compared with the CPU when they are first opened on a card."""

from __future__ import annotations

from collections.abc import Callable

from engines.bundle.folder import Bundle
from engines.bundle.plan_record import PlanParity, PlanRecord
from engines.cuda.gpu import Gpu
from engines.engine import DeviceEngine, Provider
from engines.tensorrt import vendor
from engines.tensorrt.card_folder import CardFolder
from engines.tensorrt.libraries import TENSORRT_RTX
from engines.tensorrt.machine import driver_version
from engines.tensorrt.provider import TensorRtProvider
from engines.tensorrt.rtx_engine import RtxEngine

# Compares a plan's engine with the CPU; raises PlanRefusedError.
Compare = Callable[[Bundle, PlanRecord, DeviceEngine, Gpu], PlanParity]


class RtxProvider(TensorRtProvider):
    """No plan draws before it was compared with the CPU on some card."""

    provider = Provider.TENSORRT_RTX
    library = TENSORRT_RTX

    def __init__(self, bundle: Bundle, gpu: Gpu, compare: Compare) -> None:
        """Raises as TensorRtProvider does."""
        super().__init__(bundle, gpu)
        self._compare = compare
        self._card = CardFolder.of(bundle.path, gpu.name, driver_version())

    def _context(self, record: PlanRecord, engine: vendor.ICudaEngine) -> RtxEngine:
        """A context, with what it compiled kept; raises PlanRefusedError for a plan that drifts."""
        if record.built.parity is None and self._card.parity(record) is None:
            first = self._compiled(record, engine)
            try:
                parity = self._compare(self._bundle, record, first, self._gpu)
            finally:
                self._card.keep_compiled(record, first.compiled())
                first.close()
            self._card.keep_parity(record, parity)
        return self._compiled(record, engine)

    def _compiled(self, record: PlanRecord, engine: vendor.ICudaEngine) -> RtxEngine:
        cached = self._card.compiled(record)
        opened = RtxEngine(record.spec.component, self._trt, engine, cached)
        self._card.keep_compiled(record, opened.compiled())
        return opened
