"""The paper's Table 1 on photographs: identity and prompt consistency, one person and two.

Draws each person of a folder of photos alone and in pairs from a bundle of the released weights,
finds the faces, compares them with the photos', and holds each picture against its prompt by CLIP.
A run that was ended goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.harness.backends import CPU, PROVIDERS, TORCH
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options, flag
from benchmarks.harness.record import code_digest, header_of, table_of
from benchmarks.photographs.clip import Clip
from benchmarks.photographs.faces import FACE_SHEETS, FaceModel, Values, YuNet
from benchmarks.photographs.models import CLIP, DETECTOR, FACE_MODEL, opened
from benchmarks.photographs.protocol import (
    Prompts,
    ProtocolError,
    Subject,
    Trial,
    multi_trials,
    single_trials,
    subjects_of,
)
from benchmarks.photographs.record import Table1Facts, Table1Record, Table1Row
from benchmarks.photographs.scoring import FaceJudge, TrialScore, group_interval
from benchmarks.photographs.work import Work
from benchmarks.schema.quality import Ends
from engines.bundle.folder import Bundle
from engines.bundle.records import Count
from runtime import FaceDiffuser, GuidanceRule, Preset, Request
from runtime.inputs.identity import Identity
from runtime.inputs.photo import load_reference

# Face-Diffuser's in the paper's Table 1: identity and prompt, of one person and of several.
PAPER = {"one person": (0.708, 0.325), "two people": (0.593, 0.319)}


@dataclass(frozen=True, kw_only=True)
class Table1Options(Options):
    photos: Path | None = field(
        default=None,
        metadata=flag("folder of photos of one person each, such as woman_anna.jpg (no default)"),
    )
    prompts: Path | None = field(
        default=None,
        metadata=flag("templates, one a line (default: this toolkit's own, not the paper's)"),
    )
    bundle: Path = field(default=Path("bundle"), metadata=flag("of the released weights"))
    provider: str = field(
        default=CPU,
        metadata=flag("what runs the bundle", choices=[n for n in PROVIDERS if n != TORCH]),
    )
    threads: int | None = field(
        default=None, metadata=flag("processor cores to use (default: all)")
    )
    preset: str = field(
        default=Preset.QUALITY.value,
        metadata=flag("how to draw", choices=[each.value for each in Preset]),
    )
    guidance_rule: str = field(
        default=GuidanceRule.PAPER.value,
        metadata=flag("of the subject-augmented model", choices=[e.value for e in GuidanceRule]),
    )
    images: Count = field(
        default=4, metadata=flag("of each person or pair by each prompt", quick=1)
    )
    pairs: Count = field(default=30, metadata=flag("of people at most", quick=1))
    detector: str | None = field(
        default=None,
        metadata=flag(f"of faces, as YuNet's (default: {DETECTOR.hub_id})", metavar="ONNX_OR_ID"),
    )
    face_model: str | None = field(
        default=None, metadata=flag(f"(default: {FACE_MODEL.hub_id})", metavar="ONNX_OR_ID")
    )
    face_kind: str = field(
        default="sface", metadata=flag("how it takes its input", choices=list(FACE_SHEETS))
    )
    clip: str | None = field(
        default=None, metadata=flag(f"(default: {CLIP.hub_id})", metavar="FOLDER_OR_ID")
    )
    work: Path = field(
        default=Path("build/table1"), metadata=flag("where pictures and scores are kept")
    )


def measured(options: Table1Options) -> Table1Record:
    """Raises ProtocolError, JudgeError and what opening a bundle raises."""
    if options.photos is None:
        raise ProtocolError(
            "expected a folder of photos of one person each, such as woman_anna.jpg; "
            "type: --photos FOLDER"
        )
    subjects = subjects_of(options.photos)
    prompts = Prompts.read(options.prompts) if options.prompts else Prompts()
    if options.quick:
        prompts = Prompts(single=prompts.single[:2], multi=prompts.multi[:1])
    bundle = Bundle.open(options.bundle)
    places = {
        "detector": opened(options.detector, DETECTOR),
        "face model": opened(options.face_model, FACE_MODEL),
        "CLIP": opened(options.clip, CLIP),
    }
    for what, place in places.items():
        tqdm.write(f"{what}: {place.told}", file=sys.stderr)
    for license in bundle.manifest.licenses:
        tqdm.write(f"weights: {license}", file=sys.stderr)
    judge = FaceJudge(
        YuNet(places["detector"].path),
        FaceModel(places["face model"].path, FACE_SHEETS[options.face_kind]),
    )
    clip = Clip(places["CLIP"].path)
    # Read as the model reads them: upright, on white.
    people = {
        each.name: judge.reference(load_reference(each.photo), str(each.photo)) for each in subjects
    }
    digest = bundle.manifest.digest()
    work = Work(
        options.work,
        [
            code_digest("runtime", "engines"),
            digest,
            options.provider,
            options.preset,
            options.guidance_rule,
        ],
        [
            code_digest("benchmarks/photographs"),
            *([each.told, each.digest] for each in places.values()),
            options.face_kind,
        ],
    )
    kinds = {
        "one person": single_trials(subjects, prompts, options.images),
        "two people": multi_trials(subjects, prompts, options.images, options.pairs),
    }
    with FaceDiffuser.open(
        options.bundle, provider=options.provider, threads=options.threads
    ) as face_diffuser:
        draw = _Drawing(face_diffuser, options)
        rows = [
            _row(name, _scores(name, trials, work, draw, judge, clip, people), trials)
            for name, trials in kinds.items()
            if trials
        ]
    return Table1Record(
        header=header_of("table1", options, gpu=None, seeds=range(options.images)),
        facts=Table1Facts(
            detector=places["detector"].told,
            face_model=places["face model"].told,
            face_kind=options.face_kind,
            clip=places["CLIP"].told,
            bundle=digest,
            licenses=tuple(bundle.manifest.licenses),
            subjects=len(subjects),
            provider=options.provider,
            preset=options.preset,
            guidance_rule=options.guidance_rule,
        ),
        rows=tuple(rows),
    )


class _Drawing:
    """Draws trials; each photo is encoded once."""

    def __init__(self, face_diffuser: FaceDiffuser, options: Table1Options) -> None:
        self._face_diffuser, self._options = face_diffuser, options
        self._encoded: dict[str, Identity] = {}

    def picture(self, trial: Trial) -> Image.Image:
        request = Request(
            prompt=trial.prompt,
            references=[self._identity(each) for each in trial.subjects],
            seed=trial.seed,
            preset=Preset(self._options.preset),
            guidance_rule=GuidanceRule(self._options.guidance_rule),
        )
        return self._face_diffuser.generate(request).pictures[0]

    def _identity(self, subject: Subject) -> Identity:
        if subject.name not in self._encoded:
            self._encoded[subject.name] = self._face_diffuser.encode_reference(subject.photo)
        return self._encoded[subject.name]


def _scores(
    name: str,
    trials: Sequence[Trial],
    work: Work,
    draw: _Drawing,
    judge: FaceJudge,
    clip: Clip,
    people: dict[str, Values],
) -> list[TrialScore]:
    def score(trial: Trial) -> TrialScore:
        picture = work.picture(trial, lambda: draw.picture(trial))
        identity, found = judge.identity(picture, [people[e.name] for e in trial.subjects])
        return TrialScore(
            key=work.key(trial),
            group=trial.group,
            identity=identity,
            prompt=clip.agreement(picture, trial.plain_prompt),
            found=found,
        )

    return [
        work.score(trial, lambda trial=trial: score(trial))  # type: ignore[misc]
        for trial in tqdm(trials, desc=name, unit="picture")
    ]


def _row(name: str, scores: Sequence[TrialScore], trials: Sequence[Trial]) -> Table1Row:
    groups = [each.group for each in scores]
    identity, prompt = ([getattr(each, kind) for each in scores] for kind in ("identity", "prompt"))
    lacking = [each.found < len(trial.subjects) for each, trial in zip(scores, trials, strict=True)]
    paper_identity, paper_prompt = PAPER[name]
    return Table1Row(
        row=name,
        pictures=len(scores),
        groups=len(set(groups)),
        identity=round(float(np.mean(identity)), 4),
        identity_95=_rounded(group_interval(identity, groups)),
        prompt=round(float(np.mean(prompt)), 4),
        prompt_95=_rounded(group_interval(prompt, groups)),
        without_face=round(float(np.mean(lacking)), 4),
        paper_identity=paper_identity,
        paper_prompt=paper_prompt,
    )


def _rounded(ends: Ends | None) -> Ends | None:
    return None if ends is None else (round(ends[0], 4), round(ends[1], 4))


MEASURE = Measure(options=Table1Options, measure=measured, text=table_of)
