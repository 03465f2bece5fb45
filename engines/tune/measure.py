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
from engines.engine import Engine, HostPrecision, Provider
from engines.gate import gate_inputs
from engines.providers import HOST_PROVIDERS
from engines.system.processes import run_module
from engines.tune.settings import CallTime, HostSettings, NotMeasured

# Of each image in a call: two, as in most steps.
_ROWS = 2
_FEWEST_CALLS, _MOST_CALLS = 3, 100
# A model of milliseconds is called for so long; the median then says more.
_CALLS_S = 0.5


def call_time(
    bundle: Bundle, settings: HostSettings, limit_s: float, images: Sequence[int] = ()
) -> CallTime | NotMeasured:
    """Measure the SDM U-Net's call in a child process, which is stopped at the time limit.

    images: also measure calls with so many.
    """
    words = [bundle.path, settings.provider, settings.precision, settings.threads]
    words += [word for each in images for word in ("--images", each)]
    if bundle.quantization is not None:
        words += ["--quantization", bundle.quantization]
    ended = run_module(__name__, *words, limit_s=limit_s)
    if ended.code != 0:
        reason = ended.last_words or f"it ended with {ended.code}"
        return NotMeasured(settings=settings, reason=reason)
    return from_json(CallTime, ended.printed.splitlines()[-1])


def measured(bundle: Bundle, settings: HostSettings, images: Sequence[int] = ()) -> CallTime:
    """Measure it in this process: the median of several calls, after one that is not counted."""
    start = time.perf_counter()
    engine = HOST_PROVIDERS[settings.provider].open(
        bundle, Component.SDM_UNET, settings.threads, settings.precision
    )
    load_s = time.perf_counter() - start
    images_s = {each: _call_s(bundle, engine, each) for each in images}
    call_s = images_s[1] if 1 in images_s else _call_s(bundle, engine, 1)
    engine.close()
    return CallTime(settings=settings, call_s=call_s, load_s=load_s, images_s=images_s)


def _call_s(bundle: Bundle, engine: Engine, images: int) -> float:
    """Median seconds of a call with so many images of the model's own size."""
    sizes = bundle.manifest.dimensions.sizes()
    side = bundle.manifest.dimensions.native_px // LATENT_PX
    shapes = CONTRACTS[Component.SDM_UNET].shapes(
        sizes | {"images": images, "rows": _ROWS * images, "h": side, "w": side}
    )
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
    return float(np.median(calls_s))


def main(words: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("bundle", type=Path)
    flags.add_argument("provider", type=Provider)
    flags.add_argument("precision", type=HostPrecision)
    flags.add_argument("threads", type=int)
    flags.add_argument("--images", type=int, action="append", default=[])
    flags.add_argument("--quantization", type=Quantization)
    options = flags.parse_args(words)
    settings = HostSettings(
        provider=options.provider, precision=options.precision, threads=options.threads
    )
    bundle = Bundle.open(options.bundle).quantized(options.quantization)
    print(to_json(measured(bundle, settings, options.images)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
