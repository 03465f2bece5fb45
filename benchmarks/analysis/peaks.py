"""What a machine can do at most, measured: matrix products and memory copies of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.harness.memory import peak_rss_nbytes
from benchmarks.harness.timing import repeated_ms
from benchmarks.harness.worker import Worker
from benchmarks.schema.facts import Peaks
from engines.errors import ProviderUnavailableError

# Large enough that a product is bound by arithmetic and a copy by memory, beyond every cache.
SIDE, QUICK_SIDE = {"cpu": 4096, "cuda": 8192}, {"cpu": 1024, "cuda": 4096}
COPY_NBYTES, QUICK_COPY_NBYTES = 1 << 30, 1 << 28
REPEATS, QUICK_REPEATS = 10, 3
DTYPES = {
    "cpu": {"fp32": torch.float32, "bf16": torch.bfloat16},
    "cuda": {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16},
}


def peaks_of(device: str, threads: int, *, quick: bool) -> Peaks:
    """Peaks from a process of its own, so that no other library's threads are in the way."""
    arguments = {"device": device, "threads": threads, "quick": quick}
    with Worker(measuring, Peaks, arguments, threads=threads) as worker:
        return worker.ask()


def measuring(*, device: str, threads: int, quick: bool) -> Callable[[], Peaks]:
    """In a worker with so many threads: measure when asked."""

    def measure() -> Peaks:
        torch.set_num_threads(threads)
        if device == "cuda" and not torch.cuda.is_available():
            raise ProviderUnavailableError("this PyTorch finds no CUDA GPU")
        return measured_peaks(device, quick=quick)

    return measure


def measured_peaks(device: str, *, quick: bool) -> Peaks:
    """Best of the repeats, as peaks are: FLOP/s by element type, bytes/s read and written."""
    side = (QUICK_SIDE if quick else SIDE)[device]
    repeats = QUICK_REPEATS if quick else REPEATS
    flops: dict[str, float] = {}
    for name, dtype in DTYPES[device].items():
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(left)
        ms = min(repeated_ms(partial(_product, left, right, out), repeats=repeats))
        flops[name] = 2 * side**3 / ms * 1e3
    nbytes = QUICK_COPY_NBYTES if quick else COPY_NBYTES
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    ms = min(repeated_ms(partial(_copy, target, source), repeats=repeats))
    return Peaks(
        flop_per_s=flops,
        bytes_per_s=2 * nbytes / ms * 1e3,
        side=side,
        peak_rss_nbytes=peak_rss_nbytes(),
    )


def roof_ms(flop: float, nbytes: float, peak: Peaks, dtype: str) -> float:
    """The least time that the peaks allow: arithmetic or memory, whichever takes longer."""
    return max(flop / peak.flop_per_s[dtype], nbytes / peak.bytes_per_s) * 1e3


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    torch.matmul(left, right, out=out)
    _wait(left)


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source)
    _wait(source)


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()
