"""What a bundle holds, from its manifest: as a JSON document and as lines to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import FILE_NAME, KernelManifest
from engines.bundle.manifest import ComponentRecord, Manifest
from engines.bundle.plan_record import PlanRecord
from engines.bundle.records import document_of

_MIB = 1 << 20


def document_of_contents(bundle: Bundle) -> dict[str, Any]:
    """Path, digest, sizes by folder in bytes, and the manifest as it is."""
    return {
        "bundle": str(bundle.path),
        "digest": bundle.manifest.digest(),
        "nbytes": sizes(bundle.manifest),
        "kernel_architectures": list(_architectures(bundle)),
        "manifest": document_of(bundle.manifest),
    }


def sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of the listed files by their first folder, and in total."""
    found: dict[str, int] = {}
    for name, file in manifest.all_files().items():
        parts = PurePosixPath(name).parts
        folder = parts[0] if len(parts) > 1 else "other"
        found[folder] = found.get(folder, 0) + file.nbytes
    return found | {"total": sum(found.values())}


def lines_of_contents(bundle: Bundle) -> Iterator[str]:
    """The same to read: what is inside, how exact it is, what was proved and where, whose it is."""
    manifest = bundle.manifest
    folders = sizes(manifest)
    total = folders.pop("total")
    px = manifest.dimensions.native_px
    yield f"{bundle.path}: {manifest.precision}, {px} px, opset {manifest.opset}"
    yield f"digest   {manifest.digest()}"
    parts = ", ".join(f"{name} {_size(nbytes)}" for name, nbytes in sorted(folders.items()))
    yield f"size     {_size(total)}: {parts}"
    yield ""
    yield "components, and how far each graph is from PyTorch (relative L2)"
    yield from _table([_component(name, record) for name, record in manifest.components.items()])
    compared = ", ".join(f"{name} {value:.2g}" for name, value in manifest.pipeline_parity.items())
    yield f"whole picture against PyTorch: {compared or 'not compared'}"
    yield ""
    yield "plans" if manifest.plans else "plans: none"
    yield from _table([_plan(plan) for plan in manifest.plans])
    yield ""
    named = ", ".join(f"sm_{each}" for each in _architectures(bundle))
    yield f"kernels  {named or 'none'}"
    yield "sources"
    yield from _table([(name, digest[:16]) for name, digest in manifest.sources.items()])
    yield "tools    " + ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    yield "licenses"
    yield from (f"  {line}" for line in manifest.licenses)


def _component(name: str, record: ComponentRecord) -> tuple[str, ...]:
    errors = ", ".join(f"{graph} {each.relative_l2:.1e}" for graph, each in record.parity.items())
    bounds = ", ".join(sorted({f"{each.bound:.1e}" for each in record.parity.values()}))
    kept = ", ".join(island.module for island in record.fp32_islands)
    return (
        name,
        record.onnx,
        _size(sum(file.nbytes for file in record.files.values())),
        f"{errors} (bound {bounds})" if errors else "not compared",
        f"in float32: {kept}" if kept else "",
    )


def _plan(plan: PlanRecord) -> tuple[str, ...]:
    proofs, parity = plan.built.proofs, plan.built.parity
    layers = proofs.layers
    half = (
        f"{layers.half_layers} of {layers.compute_layers} layers in half ({layers.told_by})"
        if layers
        else "layers not told"
    )
    attention = proofs.attention
    fused = f"{attention.fused} of {attention.nodes} attentions fused" if attention else ""
    ran = (
        f"within {parity.relative_l2:.1e} of the CPU on {parity.gpu}"
        if parity
        else "executed on no GPU"
    )
    return plan.spec.name, _size(plan.built.file.nbytes), half, fused, ran


def _architectures(bundle: Bundle) -> tuple[int, ...]:
    if f"{KERNELS_FOLDER}/{FILE_NAME}" not in bundle.manifest.files:
        return ()
    return KernelManifest.read(bundle.path / KERNELS_FOLDER).architectures


def _size(nbytes: int) -> str:
    return f"{nbytes / _MIB:.1f} MiB" if nbytes >= _MIB else f"{nbytes / 1024:.0f} KiB"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows of cells in columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()
