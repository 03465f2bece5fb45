"""The plans of a bundle that this machine can run, deserialized when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engines.bundle.folder import Bundle
from engines.bundle.plan_record import PlanRecord
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component, Shape, ShapeRanges
from engines.cuda.gpu import Gpu
from engines.engine import DeviceNeed, Provider
from engines.errors import BundleCorruptError, ContractError, DeviceMemoryError, RequestError
from engines.tensorrt import vendor
from engines.tensorrt.engine import TensorRtEngine, sizes_in_words
from engines.tensorrt.libraries import TENSORRT
from engines.tensorrt.library import ErrorLog, TensorRtError, installed_names, load, logger
from engines.tensorrt.loader import engine_from_plan
from engines.tensorrt.machine import check_driver
from engines.tensorrt.plans_here import fusion_nbytes, plans_for


class TensorRtProvider:
    """Each plan's weights are on the GPU once, however many contexts use them."""

    provider = Provider.TENSORRT
    library = TENSORRT

    def __init__(self, bundle: Bundle, gpu: Gpu) -> None:
        """Find the plans for this GPU and library; reads none of them yet.

        Raises ProviderUnavailableError without a library that this driver can run, and
        PlanMismatchError where the bundle's plans are for other GPUs or versions.
        """
        self._trt = load(self.library)
        version = self._trt.__version__
        check_driver(self.library, version, gpu.cuda_version, installed_names())
        self._plans = plans_for(bundle, self.library, gpu.architecture, version)
        self._bundle, self._gpu = bundle, gpu
        self._engines: dict[str, vendor.ICudaEngine] = {}
        self._contexts: dict[str, list[TensorRtEngine]] = {}
        self._log = ErrorLog()
        self._logger = logger(self._trt, self._log.hear)

    def open(self, component: Component, shapes: Mapping[str, Shape]) -> TensorRtEngine:
        record = self._record(component, shapes)
        self._log.errors.clear()
        try:
            return self._engine(record)
        except (BundleCorruptError, ContractError) as error:
            self._check_memory(record, error)
            if error.fix is not None:
                raise
            raise type(error)(
                f"{error.reason}; build it again", fix=self._bundle.plans_built()
            ) from error
        except TensorRtError as error:
            self._check_memory(record, error)
            said = f" ({self.library.title} said: {self._log.reason()})" if self._log.errors else ""
            raise TensorRtError(f"{error.reason}{said}", fix=error.fix) from error

    def need(self, component: Component, shapes: Mapping[str, Shape]) -> DeviceNeed:
        """The record tells of activations for the largest shapes of the only profile."""
        record = self._record(component, shapes)
        told = len(record.spec.shapes) == 1 and all(
            most == shapes[name] for name, (_, _, most) in record.spec.shapes[0].items()
        )
        return DeviceNeed(
            weights=record.spec.path,
            weights_nbytes=record.built.resident_nbytes,
            activations_nbytes=record.built.device_memory_nbytes if told else None,
        )

    def trim(self) -> None:
        for path in list(self._engines):
            if not self._open_contexts(path):
                del self._engines[path]

    def close(self) -> None:
        self._engines.clear()

    def _record(self, component: Component, shapes: Mapping[str, Shape]) -> PlanRecord:
        """The plan whose tuned shapes are nearest, of those that admit these."""
        plans = self._plans[component]
        near = [(distance, plan) for plan in plans if (distance := _distance(plan, shapes)) >= 0]
        if near:
            return min(near, key=lambda each: each[0])[1]
        asked = sizes_in_words(component, [shapes[t.name] for t in CONTRACTS[component].inputs])
        there = sorted({words for plan in plans for words in _words(plan)})
        raise RequestError(
            f"no plan of {component} takes {asked}; there are plans for {'; '.join(there)}; build "
            "others with",
            fix=self._bundle.plans_built("--profile", "NAME"),
        )

    def _engine(self, record: PlanRecord) -> TensorRtEngine:
        """One more context of a plan, which is deserialized for the first of them."""
        path = record.spec.path
        if path not in self._engines:
            self._engines[path] = self._deserialized(record)
        context = self._context(record, self._engines[path])
        self._contexts[path] = [*self._open_contexts(path), context]
        return context

    def _open_contexts(self, path: str) -> list[TensorRtEngine]:
        return [each for each in self._contexts.get(path, ()) if each.is_open]

    def _context(self, record: PlanRecord, engine: vendor.ICudaEngine) -> TensorRtEngine:
        return TensorRtEngine(record.spec.component, self._trt, engine)

    def _deserialized(self, record: PlanRecord) -> vendor.ICudaEngine:
        plan = self._bundle.plan(record)
        return engine_from_plan(self.library, self._trt, self._logger, plan, record.spec.name)

    def _check_memory(self, record: PlanRecord, error: Exception) -> None:
        """Raise DeviceMemoryError if an error is no more than a want of memory."""
        if not self._log.tells_of_memory():
            return
        free, total = self._gpu.free_nbytes()
        raise DeviceMemoryError(
            f"{record.spec.name} does not fit: {self._gpu.name} has {free >> 20} of "
            f"{total >> 20} MiB free, the plan takes {record.built.file.nbytes >> 20} MiB and "
            f"{record.built.device_memory_nbytes >> 20} MiB to run{self._fusion_need(record)} "
            f"({self.library.title} said: {self._log.reason()}); end what else uses the GPU, "
            "which is listed by",
            fix="nvidia-smi",
        ) from error

    def _fusion_need(self, record: PlanRecord) -> str:
        if record.spec.component not in NOISE_PREDICTORS:
            return ""
        need = fusion_nbytes(plan for plans in self._plans.values() for plan in plans)
        return f"; both U-Nets, which fusion runs at once, take at least {-(-need >> 20)} MiB"


def _distance(plan: PlanRecord, shapes: Mapping[str, Shape]) -> int:
    """How far these shapes are from the nearest tuned ones that admit them; -1 where none do."""
    distances = [_from_best(ranges, shapes) for ranges in plan.spec.shapes]
    return min((each for each in distances if each >= 0), default=-1)


def _from_best(ranges: ShapeRanges, shapes: Mapping[str, Shape]) -> int:
    total = 0
    for name, (low, best, high) in ranges.items():
        for size, least, tuned, most in zip(shapes[name], low, best, high, strict=True):
            if not least <= size <= most:
                return -1
            total += abs(size - tuned)
    return total


def _words(plan: PlanRecord) -> Sequence[str]:
    words = []
    for ranges in plan.spec.shapes:
        names = [tensor.name for tensor in CONTRACTS[plan.spec.component].inputs]
        low, high = (
            sizes_in_words(plan.spec.component, [ranges[name][end] for name in names])
            for end in (0, 2)
        )
        words.append(low if low == high else f"{low} to {high}")
    return words
