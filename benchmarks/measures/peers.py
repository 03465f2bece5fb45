"""The same work by what a user would pick instead: each peer in turns with this toolkit.

    python -m benchmarks peers [--quick] [--bundle BUNDLE] [--work step ...] [--threads N]
    python -m export.build --fp16 --random-weights --out full
    python -m benchmarks peers --bundle full --work step    # one fusion step at full size

Each side runs in a process of its own with the same number of threads. Each must first come within
BOUND of eager float32 PyTorch on this very work; else it is no peer and its speed is not reported.
Then the two of a pair take turns; the ratio is the median over the rounds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.harness.backends import CPU, PROVIDERS
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.machine import gpu_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.options import BundleOptions, SourceName, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.harness.workload import GUIDANCE_SCALE, SEED
from benchmarks.peers.comparison import BOUND, compared
from benchmarks.peers.registry import Peer, ours, peers
from benchmarks.peers.setup import Setup
from benchmarks.peers.work import WorkKind, work_of
from benchmarks.schema.peers import (
    Device,
    PeersAloneFacts,
    PeersFacts,
    PeersRecord,
)
from benchmarks.schema.results import keep
from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.bundle.records import Count
from engines.contract import NOISE_PREDICTORS
from engines.engine import HostPrecision
from engines.errors import ProviderUnavailableError
from engines.threads import processors
from export.checkpoint.model_facts import dimensions_of, noise_schedule_of
from export.source import ModelSource
from runtime import Preset
from runtime.presets import PRESETS

# A step takes its noise level from a whole run's.
STEP_OF_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class PeersOptions(BundleOptions):
    without_bundle: bool = field(
        default=False,
        metadata=flag("compare the peers with the reference alone; name the model with --model"),
    )
    device: Device = field(default="cpu", metadata=flag("the peers' (default: %(default)s)"))
    provider: str = field(
        default=CPU,
        metadata=flag("what runs the bundle (default: %(default)s)", choices=PROVIDERS),
    )
    precision: HostPrecision | None = field(
        default=None,
        metadata=flag(
            "of the bundle's U-Nets on a CPU (default: the faster)", choices=list(HostPrecision)
        ),
    )
    quantization: Quantization | None = field(
        default=None,
        metadata=flag(
            "the bundle's U-Nets in 8 bits, beside both of its float32 sides (default: none)",
            choices=list(Quantization),
        ),
    )
    work: tuple[WorkKind, ...] = field(
        default=tuple(WorkKind),
        metadata=flag("what to compare on (default: all, quick step)", quick=(WorkKind.STEP,)),
    )
    steps: Count = field(default=10, metadata=flag("of a scene and a trajectory", quick=3))
    preset: Preset | None = field(
        default=None,
        metadata=flag(
            "take this preset's number of steps, for ours and the peers alike (default: --steps)"
        ),
    )
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)")
    )
    rounds: Count = field(default=9, metadata=flag("of each pair", quick=3))
    peers: tuple[str, ...] = field(
        default=(), metadata=flag("only these (default: all)", metavar="NAME")
    )


def measured_peers(options: PeersOptions) -> PeersRecord:
    """A row per side and kind of work, ours first, each kept as it is measured.

    Ours is the bundle, or the reference where there is none. Raises ReferenceMismatchError for
    ours, ProviderUnavailableError where a GPU is asked for and missing.
    """
    facts_of_gpu = gpu_facts()
    if options.device == "cuda" and facts_of_gpu is None:
        raise ProviderUnavailableError("--device cuda needs an NVIDIA GPU; this machine has none")
    bundle = None if options.without_bundle else Bundle.open(options.bundle)
    name = source_name(options, bundle)
    source = name.opened() if bundle is None else source_of(name, bundle)
    gpu = facts_of_gpu["name"] if facts_of_gpu is not None and options.device == "cuda" else None
    record = PeersRecord(
        header=header_of("peers", options, gpu=gpu, seeds=[SEED]),
        facts=_facts(options, bundle),
        rows=(),
    )
    for kind in options.work:
        with tempfile.TemporaryDirectory() as folder:
            setup = _setup(kind, options, name, source, Path(folder))
            reference, *_ = peers(options.device)
            own = reference if bundle is None else ours_of(options)
            chosen = chosen_peers(kind, options)
            bound = bound_of(options, bundle)
            for row in compared(setup, own, reference, chosen, rounds=options.rounds, bound=bound):
                record = replace(record, rows=(*record.rows, row))
                keep(record, options.results)
    return record


def _setup(
    kind: WorkKind, options: PeersOptions, name: SourceName, source: ModelSource, folder: Path
) -> Setup:
    dimensions = dimensions_of(source)
    return Setup(
        work=work_of(
            kind,
            steps=STEP_OF_STEPS if kind is WorkKind.STEP else steps_of(options),
            size_px=options.size_px or dimensions.native_px,
            guidance_scale=GUIDANCE_SCALE,
        ),
        bundle=None if options.without_bundle else options.bundle,
        source=name,
        threads=options.threads or processors(),
        dimensions=dimensions,
        noise_schedule=noise_schedule_of(source),
        folder=folder,
    )


def ours_of(options: PeersOptions) -> Peer:
    """The bundle as the options say; its plain name where they say nothing."""
    return ours(options.provider, precision=options.precision, quantization=options.quantization)


def bound_of(options: PeersOptions, bundle: Bundle | None) -> float:
    """Of ours from the reference: in 8 bits what its build allowed a call, measured from half."""
    if bundle is None or options.quantization is None:
        return BOUND
    records = bundle.quantized(options.quantization).manifest.components
    return BOUND + max(
        records[each].quantized[options.quantization].error.call_bound for each in NOISE_PREDICTORS
    )


def steps_of(options: PeersOptions) -> int:
    """One number for all sides: a ratio is never of other steps in disguise."""
    if options.preset is None:
        return options.steps
    return PRESETS[options.preset].num_inference_steps


def chosen_peers(kind: WorkKind, options: PeersOptions) -> list[Peer]:
    """The peers that can do this work, of those that were named or that a quick run has."""
    return [
        peer
        for peer in peers(options.device, eight_bit=options.quantization is not None)
        if kind in peer.works
        and (peer.wants != "bundle" or not options.without_bundle)
        and (peer.quick or not options.quick or options.peers)
        and (not options.peers or peer.name in options.peers)
    ]


def _facts(options: PeersOptions, bundle: Bundle | None) -> PeersFacts | PeersAloneFacts:
    cores = options.threads or processors()
    if bundle is None:
        return PeersAloneFacts(
            bound=BOUND, rounds=options.rounds, threads=cores, device=options.device
        )
    return PeersFacts(
        **vars(bundle_facts(bundle, cores)),
        provider=options.provider,
        bound=bound_of(options, bundle),
        rounds=options.rounds,
        device=options.device,
    )


MEASURE = Measure(options=PeersOptions, measure=measured_peers, text=table_of)
