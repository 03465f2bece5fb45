"""What a record says of the bundle it was measured on."""

from __future__ import annotations

from typing import Any

from benchmarks.machine import usable_cpus
from engines.bundle import Bundle
from engines.contract import Component
from engines.manifest import Precision


def bundle_facts(bundle: Bundle, threads: int | None) -> dict[str, Any]:
    """Precision, size, weights, licenses, and how many threads computed."""
    return {
        "precision": bundle.manifest.precision.value,
        "native_px": bundle.manifest.dimensions.native_px,
        "weights_fp32_nbytes": weights_fp32_nbytes(bundle),
        "licenses": bundle.manifest.licenses,
        "threads": threads or usable_cpus(),
    }


def weights_fp32_nbytes(bundle: Bundle) -> int:
    """Bytes of all weights in float32, as CPUs compute; a file that twins share counts once."""
    files = {
        name: record.nbytes
        for component in Component
        for name, record in bundle.component(component).files.items()
        if name.endswith(".data")
    }
    return sum(files.values()) * (2 if bundle.manifest.precision is Precision.FP16 else 1)
