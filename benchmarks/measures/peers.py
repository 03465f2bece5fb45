"""The same work by what a user would pick instead: each peer in turns with this toolkit.

    python -m benchmarks peers [--quick] [--bundle BUNDLE] [--work step ...] [--threads N]
    python -m export.build --fp16 --random-weights --out full
    python -m benchmarks peers --bundle full --work step    # one fusion step at full size

Each contestant lives in a process of its own with the same number of threads. Each must first come
within BOUND of eager float32 PyTorch on this very work; else it is no peer and its speed is not
reported. Then the two of a pair take turns; the ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.flags import add_bundle_flags, add_provider_flag
from benchmarks.harness.machine import gpu_facts, usable_cpus
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.record import record
from benchmarks.harness.workload import GUIDANCE_SCALE, SEED
from benchmarks.peers import registry as peer_list
from benchmarks.peers.comparison import BOUND, raced
from benchmarks.peers.setup import Course
from benchmarks.peers.work import WorkKind, work_of
from engines.bundle.folder import Bundle
from engines.errors import ProviderUnavailableError
from export.checkpoint.model_facts import dimensions_of, noise_schedule_of

ROUNDS, QUICK_ROUNDS = 9, 3
# A step takes its noise level from a whole run's.
STEP_OF_STEPS = 50
STEPS, QUICK_STEPS = 10, 3


def add_flags(flags: argparse.ArgumentParser) -> None:
    add_bundle_flags(flags)
    flags.add_argument(
        "--without-bundle", action="store_true",
        help="race the peers alone, against the reference; name the model with --model",
    )  # fmt: skip
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="the peers'")
    add_provider_flag(flags, torch=True)
    flags.add_argument(
        "--work", nargs="*", choices=[kind.value for kind in WorkKind],
        help="what to race on (default: all; quick: step)",
    )  # fmt: skip
    flags.add_argument("--steps", type=int, help=f"(default: {STEPS}, quick {QUICK_STEPS})")
    flags.add_argument("--size-px", type=int, help="height and width (default: the model's own)")
    flags.add_argument("--rounds", type=int, help=f"(default: {ROUNDS}, quick {QUICK_ROUNDS})")
    flags.add_argument("--peers", nargs="*", metavar="NAME", help="only these")


def measured(
    *, quick: bool, bundle: Path, threads: int | None, without_bundle: bool, device: str,
    provider: str,
    work: list[str] | None, steps: int | None, size_px: int | None, rounds: int | None,
    peers: list[str] | None, **source: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row per contestant and kind of work, the one at home first.

    At home is the bundle, or the reference where there is none. Raises ReferenceMismatchError for
    the one at home, ProviderUnavailableError where a GPU is asked for and missing.
    """
    facts_of_gpu = gpu_facts()
    if device == "cuda" and facts_of_gpu is None:
        raise ProviderUnavailableError("--device cuda needs an NVIDIA GPU; this machine has none")
    opened = None if without_bundle else Bundle.open(bundle)
    name = source_name(source, opened)
    model = name.opened() if opened is None else source_of(name, opened)
    entrants = peer_list.peers(device)
    reference = entrants[0]
    home = reference if opened is None else peer_list.ours(provider)
    cores, count = threads or usable_cpus(), rounds or (QUICK_ROUNDS if quick else ROUNDS)
    total, dimensions = steps or (QUICK_STEPS if quick else STEPS), dimensions_of(model)
    kinds = [WorkKind(kind) for kind in work or ([WorkKind.STEP] if quick else list(WorkKind))]
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        job = work_of(
            kind,
            steps=STEP_OF_STEPS if kind is WorkKind.STEP else total,
            size_px=size_px or dimensions.native_px,
            guidance_scale=GUIDANCE_SCALE,
        )
        chosen = [
            each
            for each in entrants
            if kind in each.works
            and (each.wants != "bundle" or opened is not None)
            and (each.quick or not quick or peers)
            and (not peers or each.name in peers)
        ]
        with tempfile.TemporaryDirectory() as folder:
            course = Course(
                work=job, bundle=None if opened is None else bundle, source=name, threads=cores,
                dimensions=dimensions, noise_schedule=noise_schedule_of(model),
                folder=Path(folder),
            )  # fmt: skip
            rows += raced(course, home, reference, chosen, rounds=count)
    facts = {"bound": BOUND, "rounds": count, "threads": cores, "device": device}
    facts["provider"] = None if opened is None else provider
    if opened is not None:
        facts |= bundle_facts(opened, cores)
    gpu = facts_of_gpu["name"] if facts_of_gpu is not None and device == "cuda" else None
    return record("peers", rows, gpu=gpu, facts=facts, seeds=[SEED])
