"""What the faster presets save on this machine, with this model: whole pictures, in turns.

    python -m benchmarks presets [--quick] [--bundle BUNDLE] [--threads N] [--rounds N]

U-Net evaluations fall to a third and a seventh; time falls by less, because encoders and decoder
stay. How far the pictures move is told by `quality --curve` (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from benchmarks.analysis.stats import paired_ratio
from benchmarks.harness.backends import gpu_of, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.options import ProviderOptions, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.timing import elapsed_ms, interleaved_ms
from benchmarks.harness.workload import SEED, Workload
from benchmarks.pictures.record import PresetRow, PresetsFacts, PresetsRecord
from engines.bundle.folder import Bundle
from engines.bundle.records import Count
from runtime import FaceDiffuser, Preset, Result

# Some of every stage and kind of call, so that a picture of a preset that follows is not its first.
_WARM_UP_STEPS = 4
_CODERS = ("text", "references", "decode")


@dataclass(frozen=True, kw_only=True)
class PresetsOptions(ProviderOptions):
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)")
    )
    rounds: Count = field(default=9, metadata=flag("in which the presets take turns", quick=2))


@dataclass(frozen=True)
class Turns:
    """Each preset's milliseconds, round by round, and its last picture."""

    times: Mapping[Preset, list[float]]
    last: Mapping[Preset, Result]


def measured_presets(options: PresetsOptions) -> PresetsRecord:
    """A row per preset; raises ReferenceMismatchError."""
    bundle = Bundle.open(options.bundle)
    reference = Reference(source_of(source_name(options, bundle), bundle), bundle.manifest)
    workload = Workload(size_px=options.size_px)
    with opened_backend(bundle.path, options.provider, options.threads) as backend:
        agreement = reference.check(backend.face_diffuser)
        turns = presets_in_turns(backend.face_diffuser, options.rounds, workload)
    facts = PresetsFacts(
        **vars(bundle_facts(bundle, options.threads)),
        provider=options.provider,
        agreement=agreement,
        size_px=options.size_px or bundle.manifest.dimensions.native_px,
        people=workload.people,
        rounds=options.rounds,
    )
    header = header_of("presets", options, gpu=gpu_of(options.provider), seeds=[SEED])
    return PresetsRecord(header=header, facts=facts, rows=preset_rows(turns))


def presets_in_turns(
    face_diffuser: FaceDiffuser, rounds: int, workload: Workload | None = None
) -> Turns:
    """Draw each preset's picture once a round, after one in few steps that does not count."""
    asked = workload or Workload()
    last: dict[Preset, Result] = {}

    def timed(preset: Preset) -> float:
        request = asked.request(preset=preset, num_inference_steps=None)

        def draw() -> None:
            last[preset] = face_diffuser.generate(request)

        return elapsed_ms(draw)

    for preset in Preset:
        face_diffuser.generate(asked.request(preset=preset, num_inference_steps=_WARM_UP_STEPS))
    times = interleaved_ms({each: partial(timed, each) for each in Preset}, rounds=rounds)
    return Turns({Preset(name): each for name, each in times.items()}, last)


def preset_rows(turns: Turns) -> tuple[PresetRow, ...]:
    """A row per preset, the quality preset first."""
    quality = turns.times[Preset.QUALITY]
    rows = []
    for preset in Preset:
        times, result = turns.times[preset], turns.last[preset]
        found = None if preset is Preset.QUALITY else paired_ratio(quality, times)
        interval = None if found is None or found.rounds == 1 else found
        rows.append(
            PresetRow(
                preset=preset.value,
                steps=result.request.num_inference_steps,
                evaluations=result.evaluations,
                p50_ms=median(times),
                coders_ms=sum(result.timings_ms[part] for part in _CODERS),
                times_as_fast=None if found is None else found.ratio,
                low=None if interval is None else interval.low,
                high=None if interval is None else interval.high,
            )
        )
    return tuple(rows)


MEASURE = Measure(options=PresetsOptions, measure=measured_presets, text=table_of)
