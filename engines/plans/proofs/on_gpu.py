"""Comparing plans with the CPU on a card that runs them: when one is first opened, or asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from engines.bundle.folder import Bundle
from engines.bundle.lock import build_lock
from engines.bundle.plan_record import PlanParity, PlanRecord
from engines.cuda.driver import driver, driver_version
from engines.cuda.gpu import Gpu, opened_gpu
from engines.engine import DeviceEngine
from engines.errors import PlanMismatchError
from engines.plans.bundle_plans import plan_job
from engines.plans.proofs.parity import plan_parity
from engines.plans.store import publish, write_journal
from engines.tensorrt.card_folder import CardFolder
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.libraries import LIBRARIES, TENSORRT_RTX, Library, is_for, words_for
from engines.tensorrt.library import ErrorLog, TensorRt, installed_names, load, logger
from engines.tensorrt.loader import engine_from_plan
from engines.tensorrt.machine import check_driver
from engines.tensorrt.rtx_engine import opened_on_card


def compared(bundle: Bundle, record: PlanRecord, engine: DeviceEngine, gpu: Gpu) -> PlanParity:
    """A plan's distance from the CPU; raises PlanRefusedError beyond the component's bound."""
    return plan_parity(engine, gpu, plan_job(bundle, record.spec), lambda done, of: None)


def compare_on_gpu(path: Path) -> list[PlanRecord]:
    """Compare all plans of a bundle that this machine's GPU runs, and record it in the manifest.

    Raises PlanMismatchError where it runs none, ProviderUnavailableError, PlanRefusedError or
    BundleCorruptError.
    """
    with build_lock(path), opened_gpu(driver()) as gpu:
        bundle = Bundle.open(path)
        bundle.require_models("comparing plans with the CPU")
        records = [_compared(bundle, record, gpu) for record in _run_by(bundle, gpu)]
        for record in records:
            write_journal(path, record)
        publish(path, bundle.manifest, records)
    return records


def _run_by(bundle: Bundle, gpu: Gpu) -> Iterator[PlanRecord]:
    plans = [plan for plan in bundle.manifest.plans if is_for(plan.spec, gpu.architecture)]
    if not plans:
        fix = bundle.plans_built(*words_for(TENSORRT_RTX, gpu.architecture))
        raise PlanMismatchError(
            f"{bundle.path} has no plan for {gpu.name} (sm_{gpu.architecture}); build its plans "
            "with",
            fix=fix,
        )
    yield from plans


def _compared(bundle: Bundle, record: PlanRecord, gpu: Gpu) -> PlanRecord:
    library = LIBRARIES[record.spec.library]
    trt = load(library)
    check_driver(library, trt.__version__, gpu.cuda_version, installed_names())
    if trt.__version__ != record.spec.version:
        raise PlanMismatchError(
            f"{record.spec.name} was built with {library.title} {record.spec.version}, this "
            f"machine has {trt.__version__}; build its plans with",
            fix=bundle.plans_built(*words_for(library, gpu.architecture)),
        )
    engine = _opened(library, trt, bundle, record, gpu)
    try:
        parity = compared(bundle, record, engine, gpu)
    finally:
        engine.close()
    return replace(record, built=replace(record.built, parity=parity))


def _opened(
    library: Library, trt: TensorRt, bundle: Bundle, record: PlanRecord, gpu: Gpu
) -> TensorRtEngine:
    heard = logger(trt, ErrorLog().hear)
    engine = engine_from_plan(library, trt, heard, bundle.plan(record), record.spec.name)
    if library is TENSORRT_RTX:
        card = CardFolder.of(bundle.path, gpu.name, driver_version())
        return opened_on_card(card, trt, engine, record)
    return TensorRtEngine(record.spec.component, trt, engine)
