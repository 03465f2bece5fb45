"""Plans of TensorRT for RTX: compared with the CPU when they are first opened on a card."""

from __future__ import annotations

from collections.abc import Callable

from engines.bundle.folder import Bundle
from engines.bundle.plan_record import PlanParity, PlanRecord
from engines.cuda.driver import driver_version
from engines.cuda.gpu import Gpu
from engines.engine import DeviceEngine, Provider
from engines.tensorrt import vendor
from engines.tensorrt.card_folder import CardFolder
from engines.tensorrt.libraries import TENSORRT_RTX
from engines.tensorrt.provider import TensorRtProvider
from engines.tensorrt.rtx_engine import RtxEngine, opened_on_card

# Compares a plan's engine with the CPU; raises PlanRefusedError.
Compare = Callable[[Bundle, PlanRecord, DeviceEngine, Gpu], PlanParity]


class RtxProvider(TensorRtProvider):
    """No plan draws before it was compared with the CPU on some card, where that can be done."""

    provider = Provider.TENSORRT_RTX
    library = TENSORRT_RTX

    def __init__(self, bundle: Bundle, gpu: Gpu, compare: Compare) -> None:
        """Raises as TensorRtProvider does."""
        super().__init__(bundle, gpu)
        self._compare = compare
        self._card = CardFolder.of(bundle.path, gpu.name, driver_version())

    def _context(self, record: PlanRecord, engine: vendor.ICudaEngine) -> RtxEngine:
        """A context, with what it compiled kept; raises PlanRefusedError for a plan that drifts."""
        known = record.built.parity or self._card.parity(record)
        # Whoever dropped the ONNX models was told that nothing is left to compare with.
        if known is None and not self._bundle.manifest.plans_only:
            first = opened_on_card(self._card, self._trt, engine, record)
            try:
                parity = self._compare(self._bundle, record, first, self._gpu)
            finally:
                first.close()
            self._card.keep_parity(record, parity)
        return opened_on_card(self._card, self._trt, engine, record)
