"""`python -m engines.tune.measure`: the time of a U-Net's call, in a process of its own.

Each in its own, because ONNX Runtime keeps its threads and OpenVINO several copies of the weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.bundle.records import from_json, to_json
from engines.contract import CONTRACTS, LATENT_PX, Component
from engines.engine import HostPrecision, Provider
from engines.gate import gate_inputs
from engines.providers import HOST_PROVIDERS
from engines.system.processes import run_module
from engines.tune.settings import CallTime, HostSettings, NotMeasured

# Of one call: two rows, as in most steps, of one picture at the model's own size.
_ROWS = 2
_FEWEST_CALLS, _MOST_CALLS = 3, 100
# A model of milliseconds is called for so long; the median then says more.
_CALLS_S = 0.5


def call_time(bundle: Bundle, settings: HostSettings, limit_s: float) -> CallTime | NotMeasured:
    """Measure the SDM U-Net's call in a child process, which is stopped at the time limit."""
    words = [bundle.path, settings.provider, settings.precision, settings.threads]
    if bundle.quantization is not None:
        words += ["--quantization", bundle.quantization]
    ended = run_module(__name__, *words, limit_s=limit_s)
    if ended.code != 0:
        reason = ended.last_words or f"it ended with {ended.code}"
        return NotMeasured(settings=settings, reason=reason)
    return from_json(CallTime, ended.printed.splitlines()[-1])


def measured(bundle: Bundle, settings: HostSettings) -> CallTime:
    """Measure it in this process: the median of several calls, after one that is not counted."""
    sizes = bundle.manifest.dimensions.sizes()
    side = bundle.manifest.dimensions.native_px // LATENT_PX
    shapes = CONTRACTS[Component.SDM_UNET].shapes(
        sizes | {"images": 1, "rows": _ROWS, "h": side, "w": side}
    )
    start = time.perf_counter()
    engine = HOST_PROVIDERS[settings.provider].open(
        bundle, Component.SDM_UNET, settings.threads, settings.precision
    )
    load_s = time.perf_counter() - start
    inputs = next(gate_inputs(Component.SDM_UNET, shapes))
    buffers = {name: np.zeros(shape, engine.dtypes[name]) for name, shape in shapes.items()}
    for name, array in inputs.items():
        buffers[name][...] = array
    engine.bind(buffers)
    engine.enqueue()
    calls_s: list[float] = []
    while len(calls_s) < _FEWEST_CALLS or (sum(calls_s) < _CALLS_S and len(calls_s) < _MOST_CALLS):
        start = time.perf_counter()
        engine.enqueue()
        calls_s.append(time.perf_counter() - start)
    engine.close()
    return CallTime(settings=settings, call_s=float(np.median(calls_s)), load_s=load_s)


def main(words: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("bundle", type=Path)
    flags.add_argument("provider", type=Provider)
    flags.add_argument("precision", type=HostPrecision)
    flags.add_argument("threads", type=int)
    flags.add_argument("--quantization", type=Quantization)
    options = flags.parse_args(words)
    settings = HostSettings(
        provider=options.provider, precision=options.precision, threads=options.threads
    )
    bundle = Bundle.open(options.bundle).quantized(options.quantization)
    print(to_json(measured(bundle, settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
