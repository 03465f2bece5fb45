"""What a record says of the bundle it was measured on."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.schema.facts import BundleFacts
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Precision
from engines.contract import NOISE_PREDICTORS, Component
from engines.engine import HostPrecision, Provider
from engines.threads import processors
from engines.tune.chosen import chosen_settings


def bundle_facts(bundle: Bundle, threads: int | None) -> BundleFacts:
    """Precision, size, weights, licenses, and how many threads computed."""
    return BundleFacts(
        precision=bundle.manifest.precision,
        native_px=bundle.manifest.dimensions.native_px,
        weights_fp32_nbytes=weights_fp32_nbytes(bundle),
        licenses=tuple(bundle.manifest.licenses),
        threads=threads or processors(),
    )


def weights_fp32_nbytes(bundle: Bundle) -> int:
    """Bytes of all weights in float32; a file that twins share counts once."""
    return sum(_fp32_nbytes(bundle, Component).values())


def computed_weights_nbytes(bundle: Bundle, provider: str, threads: int | None) -> int:
    """Bytes of all weights in the precision that a provider of the host computes them in."""
    whole = weights_fp32_nbytes(bundle)
    settings = chosen_settings(bundle, Provider(provider), None, threads)
    if settings.precision is HostPrecision.BFLOAT16:
        return whole - sum(_fp32_nbytes(bundle, NOISE_PREDICTORS).values()) // 2
    return whole


def _fp32_nbytes(bundle: Bundle, components: Iterable[Component]) -> dict[str, int]:
    """By weights file, its bytes in float32."""
    times = 2 if bundle.manifest.precision is Precision.FP16 else 1
    return {
        name: record.nbytes * times
        for component in components
        for name, record in bundle.component(component).files.items()
        if name.endswith(".data")
    }
