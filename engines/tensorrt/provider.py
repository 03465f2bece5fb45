"""The plans of a bundle that this machine can run, deserialized when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import distributions

from engines import commands
from engines.bundle.folder import Bundle
from engines.bundle.plan_record import PlanRecord
from engines.contract import CONTRACTS, Component, Shape, ShapeRanges
from engines.cuda.gpu import Gpu
from engines.engine import Provider
from engines.errors import BundleCorruptError, DeviceMemoryError, RequestError
from engines.plans.plan_from_onnx import BuildLog
from engines.tensorrt import vendor
from engines.tensorrt.engine import TensorRtEngine, sizes_in_words
from engines.tensorrt.library import TensorRt, TensorRtError, logger, tensorrt
from engines.tensorrt.loader import engine_from_plan
from engines.tensorrt.machine import check_driver
from engines.tensorrt.plans_here import plans_for


class TensorRtProvider:
    """Each plan's weights are on the GPU once, however many contexts use them."""

    provider = Provider.TENSORRT

    def __init__(self, bundle: Bundle, gpu: Gpu, trt: TensorRt | None = None) -> None:
        """Find the plans for this GPU and TensorRT; reads none of them yet.

        Raises ProviderUnavailableError without a TensorRT that this driver can run, and
        PlanMismatchError where the bundle's plans are for other GPUs or versions.
        """
        self._trt = tensorrt() if trt is None else trt
        version = self._trt.__version__
        installed = [distribution.metadata["Name"] or "" for distribution in distributions()]
        check_driver(version, gpu.cuda_version, installed)
        self._plans = plans_for(bundle, gpu.architecture, version)
        self._bundle, self._gpu = bundle, gpu
        self._engines: dict[str, vendor.ICudaEngine] = {}
        self._log = BuildLog([])
        self._logger = logger(self._trt, self._hear)

    def open(self, component: Component, shapes: Mapping[str, Shape]) -> TensorRtEngine:
        record = self._record(component, shapes)
        try:
            if record.spec.path not in self._engines:
                self._engines[record.spec.path] = self._deserialized(record)
            return TensorRtEngine(component, self._trt, self._engines[record.spec.path])
        except (BundleCorruptError, TensorRtError) as error:
            if not self._log.tells_of_memory():
                raise
            free, total = self._gpu.free_nbytes()
            raise DeviceMemoryError(
                f"{record.spec.name} does not fit: {self._gpu.name} has {free >> 20} of "
                f"{total >> 20} MiB free, the plan takes {record.built.file.nbytes >> 20} MiB and "
                f"{record.built.device_memory_nbytes >> 20} MiB to run; end what else uses the GPU "
                f"(nvidia-smi). TensorRT said: {self._log.errors[-1]}"
            ) from error

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
            f"others with: {commands.plans_built(self._bundle.path)} --profile NAME"
        )

    def _deserialized(self, record: PlanRecord) -> vendor.ICudaEngine:
        self._log.errors.clear()
        path = self._bundle.path / record.spec.path
        if not path.is_file() or path.stat().st_size != record.built.file.nbytes:
            raise BundleCorruptError(
                f"{path} is not whole; build it again: {commands.plans_built(self._bundle.path)}"
            )
        return engine_from_plan(self._trt, self._logger, path.read_bytes(), record.spec.name)

    def _hear(self, severity: str, message: str) -> None:
        if "ERROR" in severity:
            self._log.errors.append(message)


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
