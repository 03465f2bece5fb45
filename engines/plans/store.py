"""Where plans lie while they are built and once they are published.

A finished plan waits in build/plans/ with a journal, so a build that is killed goes on where it
was. Publishing moves it to plans/ and lists it in the manifest; the journal stays, so that an
export which keeps the plan's ONNX model keeps the plan.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engines.bundle.files import FileRecord, file_record, write_atomic
from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import MANIFEST_NAME, ComponentRecord, Manifest
from engines.bundle.plan_record import PLANS_FOLDER, TIMING_CACHE_NAME, PlanRecord, PlanSpec
from engines.bundle.records import from_json, to_json
from engines.contract import Component


def staging_folder(bundle: Path) -> Path:
    """Where plans wait to be published, with journals, logs and the working timing cache."""
    return bundle / BUILD_FOLDER / PLANS_FOLDER


def working_timing_cache(bundle: Path) -> Path:
    """The timing cache that builds read and write, begun from the published one."""
    working, published = staging_folder(bundle) / TIMING_CACHE_NAME, bundle / TIMING_CACHE_NAME
    if not working.is_file() and published.is_file():
        write_atomic(working, published.read_bytes())
    return working


def finished_plan(bundle: Path, manifest: Manifest, spec: PlanSpec) -> PlanRecord | None:
    """The record of a plan that was built to the same spec and whose file is whole.

    A bundle that was copied here has its manifest, and perhaps no journals.
    """
    records = [_journal_record(_journal(bundle, spec)), *manifest.plans]
    found = (record for record in records if record is not None and record.spec == spec)
    return next((record for record in found if plan_file(bundle, record) is not None), None)


def plan_file(bundle: Path, record: PlanRecord) -> Path | None:
    """Where a recorded plan lies whole: published, waiting, or nowhere."""
    places = staging_folder(bundle) / Path(record.spec.path).name, bundle / record.spec.path
    return next((path for path in places if record.built.file.describes(path)), None)


def write_journal(bundle: Path, record: PlanRecord) -> None:
    """Note a finished plan."""
    text = to_json(record, indent=1) + "\n"
    write_atomic(_journal(bundle, record.spec), text.encode())


def published_plans(
    bundle: Path, components: dict[Component, ComponentRecord]
) -> tuple[list[PlanRecord], dict[str, FileRecord]]:
    """What of plans/ still belongs to these components, and the timing cache, for a new manifest.

    Plans of components whose ONNX model changed are left out: they are stale.
    """
    records = []
    for journal in sorted(staging_folder(bundle).glob("*.json")):
        record = _journal_record(journal)
        if record is not None and _is_current(bundle, components, record):
            records.append(record)
    return records, _timing_cache_record(bundle) if records else {}


def publish(bundle: Path, manifest: Manifest, records: Iterable[PlanRecord]) -> Manifest:
    """Move finished plans into the bundle and write its manifest; returns the new one.

    At every moment the bundle opens: a plan is listed only while its file is there.
    """
    new = {record.spec.name: record for record in records}
    kept = [
        plan
        for plan in manifest.plans
        if plan.spec.name not in new and _is_current(bundle, manifest.components, plan)
    ]
    _write_manifest(bundle, replace(manifest, plans=kept, timing_cache={}))
    for record in new.values():
        target = bundle / record.spec.path
        source = plan_file(bundle, record)
        if source is not None and source != target:
            target.parent.mkdir(exist_ok=True)
            source.replace(target)
    working = working_timing_cache(bundle)
    if working.is_file():
        write_atomic(bundle / TIMING_CACHE_NAME, working.read_bytes())
    manifest = replace(
        manifest,
        plans=sorted([*kept, *new.values()], key=lambda plan: plan.spec.name),
        timing_cache=_timing_cache_record(bundle),
    )
    _write_manifest(bundle, manifest)
    remove_unlisted_plans(bundle, manifest)
    return manifest


def remove_unlisted_plans(bundle: Path, manifest: Manifest) -> None:
    """Remove plans that the manifest does not list."""
    listed = {bundle / plan.spec.path for plan in manifest.plans}
    for path in (bundle / PLANS_FOLDER).glob("*"):
        if path not in listed:
            path.unlink()
    if not any((bundle / PLANS_FOLDER).glob("*")):
        shutil.rmtree(bundle / PLANS_FOLDER, ignore_errors=True)


def _write_manifest(bundle: Path, manifest: Manifest) -> None:
    write_atomic(bundle / MANIFEST_NAME, manifest.to_json().encode())


def _is_current(
    bundle: Path, components: dict[Component, ComponentRecord], record: PlanRecord
) -> bool:
    """Whether a plan is published and was built from the model that the bundle holds."""
    current = (
        components[record.spec.component].in_quantization(record.spec.quantization).onnx_digest()
        == record.spec.onnx_digest
    )
    return current and plan_file(bundle, record) == bundle / record.spec.path


def _journal(bundle: Path, spec: PlanSpec) -> Path:
    return staging_folder(bundle) / f"{spec.name}.json"


def _journal_record(path: Path) -> PlanRecord | None:
    try:
        return from_json(PlanRecord, path.read_bytes())
    except (OSError, ValueError):
        return None


def _timing_cache_record(bundle: Path) -> dict[str, FileRecord]:
    path = bundle / TIMING_CACHE_NAME
    return {TIMING_CACHE_NAME: file_record(path)} if path.is_file() else {}
