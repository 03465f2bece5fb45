"""Where plans lie while they are built and once they are published.

A finished plan waits in build/plans/ with a journal, so a build that is killed goes on where it
was. Publishing moves it to plans/ and lists it in the manifest; the journal stays, so that an
export which keeps the plan's ONNX model keeps the plan.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engines.bundle.files import sha256_of_file, write_atomic
from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import MANIFEST_NAME, ComponentRecord, FileRecord, Manifest
from engines.bundle.plan_record import PLANS_FOLDER, TIMING_CACHE_NAME, PlanRecord, plan_record
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


def finished_plan(bundle: Path, manifest: Manifest, name: str, key: str) -> PlanRecord | None:
    """The record of a plan that was built from the same and whose file is whole.

    A bundle that was copied here has its manifest, and perhaps no journals.
    """
    listed = [plan for plan in manifest.plans if plan.name == name]
    for record in (_journal_record(_journal(bundle, name)), *listed):
        if record is not None and record.key == key and plan_file(bundle, record) is not None:
            return record
    return None


def plan_file(bundle: Path, record: PlanRecord) -> Path | None:
    """Where a recorded plan lies whole: published, waiting, or nowhere."""
    for path in (staging_folder(bundle) / Path(record.path).name, bundle / record.path):
        whole = path.is_file() and path.stat().st_size == record.nbytes
        if whole and sha256_of_file(path) == record.sha256:
            return path
    return None


def write_journal(bundle: Path, record: PlanRecord) -> None:
    """Note a finished plan."""
    write_atomic(_journal(bundle, record.name), record.to_json().encode())


def published_plans(
    bundle: Path, components: dict[Component, ComponentRecord]
) -> tuple[list[PlanRecord], dict[str, FileRecord]]:
    """What of plans/ still belongs to these components, and the timing cache, for a new manifest.

    Plans of components whose ONNX model changed are left out: they are stale.
    """
    records = []
    for journal in sorted(staging_folder(bundle).glob("*.json")):
        record = _journal_record(journal)
        current = record and components[record.component].onnx_digest() == record.onnx_digest
        if record and current and plan_file(bundle, record) == bundle / record.path:
            records.append(record)
    return records, _timing_cache_record(bundle) if records else {}


def publish(bundle: Path, manifest: Manifest, records: Iterable[PlanRecord]) -> Manifest:
    """Move finished plans into the bundle and write its manifest; returns the new one.

    At every moment the bundle opens: a plan is listed only while its file is there.
    """
    new = {record.name: record for record in records}
    kept = [plan for plan in manifest.plans if plan.name not in new]
    kept = [
        plan
        for plan in kept
        if plan.onnx_digest == manifest.components[plan.component].onnx_digest()
        and plan_file(bundle, plan) == bundle / plan.path
    ]
    _write_manifest(bundle, replace(manifest, plans=kept, timing_cache={}))
    for record in new.values():
        target = bundle / record.path
        source = plan_file(bundle, record)
        if source is not None and source != target:
            target.parent.mkdir(exist_ok=True)
            source.replace(target)
    working = working_timing_cache(bundle)
    if working.is_file():
        write_atomic(bundle / TIMING_CACHE_NAME, working.read_bytes())
    manifest = replace(
        manifest,
        plans=sorted([*kept, *new.values()], key=lambda plan: plan.name),
        timing_cache=_timing_cache_record(bundle),
    )
    _write_manifest(bundle, manifest)
    remove_unlisted_plans(bundle, manifest)
    return manifest


def remove_unlisted_plans(bundle: Path, manifest: Manifest) -> None:
    """Remove plans that the manifest does not list."""
    listed = {bundle / plan.path for plan in manifest.plans}
    for path in (bundle / PLANS_FOLDER).glob("*"):
        if path not in listed:
            path.unlink()
    if not any((bundle / PLANS_FOLDER).glob("*")):
        shutil.rmtree(bundle / PLANS_FOLDER, ignore_errors=True)


def _write_manifest(bundle: Path, manifest: Manifest) -> None:
    write_atomic(bundle / MANIFEST_NAME, manifest.to_json().encode())


def _journal(bundle: Path, name: str) -> Path:
    return staging_folder(bundle) / f"{name}.json"


def _journal_record(path: Path) -> PlanRecord | None:
    try:
        return plan_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _timing_cache_record(bundle: Path) -> dict[str, FileRecord]:
    path = bundle / TIMING_CACHE_NAME
    if not path.is_file():
        return {}
    return {TIMING_CACHE_NAME: FileRecord(nbytes=path.stat().st_size, sha256=sha256_of_file(path))}
