"""A bundle gets its plans: nothing rebuilt without need, nothing stale kept, nothing half-made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.bundle.files import file_record
from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME, Manifest
from engines.bundle.plan_record import BuiltPlan, PlanOptionError, PlanOptions, PlanRecord
from engines.bundle.records import document_of
from engines.cli.progress import PhaseEvent
from engines.contract import Component
from engines.errors import (
    BundleCorruptError,
    PlanBuildError,
    PlanMemoryError,
    PlanMismatchError,
    PlanRefusedError,
)
from engines.plans.building import child
from engines.plans.building.child import OnEvent
from engines.plans.building.job import PlanJob, WorkerMessage
from engines.plans.bundle_plans import (
    PlanRequest,
    PlansBuilt,
    build_plans,
    plan_job,
    plan_specs,
)
from engines.plans.store import published_plans
from engines.system.processes import Ended
from engines.tensorrt.libraries import TENSORRT
from engines.tensorrt.plans_here import plans_for
from engines.tensorrt.target import PlanTarget
from tests.doubles.plan_builds import Builds, Said
from tests.engines.conftest import GPU, TARGET

# SDM has a static plan for the passes of each rule, and one for its augmented pass alone.
SDM = ("sdm_unet.native-1-pass", "sdm_unet.native-2-passes", "sdm_unet.native-3-passes")
ALL = {
    "text_encoder.fixed", "image_encoder.fixed", "fusion_mlp.fixed", "tdm_unet.native", *SDM,
    "vae_decoder.native",
}  # fmt: skip
UNETS = PlanRequest(components=(Component.TDM_UNET, Component.SDM_UNET))


def _build(
    bundle: Path,
    builds: Builds,
    request: PlanRequest | None = None,
    target: PlanTarget = TARGET,
    compare: Callable[[Path, Manifest, list[PlanRecord]], None] = lambda *_: None,
    display: Said | None = None,
) -> PlansBuilt:
    asked = request or PlanRequest()
    return build_plans(bundle, target, asked, display or Said(), compare, builds)


def test_a_bundle_with_plans_opens_verifies_and_lists_them(small_copy: Path) -> None:
    builds = Builds()
    _build(small_copy, builds)
    assert builds.names == ALL
    bundle = Bundle.open(small_copy)
    assert bundle.verify() == 19 + 8 + 1
    plans = plans_for(bundle, TENSORRT, 90, TARGET.version)
    assert set(plans) == set(Component)
    alone, record, other = plans[Component.SDM_UNET]
    assert alone.spec.shapes[0]["prompt_embeds"][0][0] == 1
    assert record.spec.path == "plans/sdm_unet.native-2-passes.sm_90.plan"
    assert [each["latents"][2] for each in record.spec.shapes] == [(1, 4, 8, 8)]
    assert (record.spec.is_static, record.spec.shapes[0]["prompt_embeds"][0][0]) == (True, 2)
    assert other.spec.shapes[0]["prompt_embeds"][0][0] == 3
    assert record.built.proofs.layers is not None
    assert (record.built_on.gpu, record.built_on.cuda, record.spec.options) == (
        "Double of a GPU",
        "13.0",
        PlanOptions(),
    )


def test_a_second_build_builds_nothing_and_writes_nothing(small_copy: Path) -> None:
    _build(small_copy, Builds())
    before = {path: path.stat().st_mtime_ns for path in small_copy.rglob("*") if path.is_file()}
    builds = Builds()
    assert len(_build(small_copy, builds).kept) == 8
    assert not builds.jobs
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_bundle_that_was_copied_without_its_journals_is_not_built_again(small_copy: Path) -> None:
    _build(small_copy, Builds())
    shutil.rmtree(small_copy / "build")
    builds = Builds()
    assert len(_build(small_copy, builds).kept) == 8
    assert not builds.jobs


def test_no_plan_is_built_from_a_model_that_was_altered(small_copy: Path) -> None:
    path, builds = small_copy / "onnx" / "vae_decoder.data", Builds()
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleCorruptError, match=r"vae_decoder\.data was altered"):
        _build(small_copy, builds, PlanRequest(components=(Component.VAE_DECODER,)))
    assert not builds.jobs
    _build(small_copy, builds, UNETS)
    assert len(builds.jobs) == 4, "their files are whole"


def test_new_weights_of_the_same_graph_get_a_new_plan(small_copy: Path) -> None:
    _build(small_copy, Builds())
    path = small_copy / "onnx" / "vae_decoder.data"
    path.write_bytes(bytes(path.stat().st_size))
    manifest = Bundle.open(small_copy).manifest
    vae = manifest.components[Component.VAE_DECODER]
    files = vae.files | {"onnx/vae_decoder.data": file_record(path)}
    components = manifest.components | {Component.VAE_DECODER: replace(vae, files=files)}
    (small_copy / MANIFEST_NAME).write_text(replace(manifest, components=components).to_json())
    builds = Builds()
    _build(small_copy, builds)
    assert builds.names == {"vae_decoder.native"}


def test_a_stale_plan_of_another_component_is_not_listed_again(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    manifest = Bundle.open(small_copy).manifest
    tdm = manifest.components[Component.TDM_UNET]
    weights = small_copy / "onnx" / "tdm_unet.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    files = tdm.files | {"onnx/tdm_unet.data": file_record(weights)}
    components = manifest.components | {Component.TDM_UNET: replace(tdm, files=files)}
    (small_copy / MANIFEST_NAME).write_text(replace(manifest, components=components).to_json())
    _build(small_copy, Builds(), PlanRequest(components=(Component.VAE_DECODER,)))
    listed = {plan.spec.component for plan in Bundle.open(small_copy).manifest.plans}
    assert listed == {Component.SDM_UNET, Component.VAE_DECODER}
    assert not (small_copy / "plans" / "tdm_unet.native.sm_90.plan").exists()


def test_a_plan_that_was_altered_and_kept_its_size_is_built_again(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    plan = small_copy / "plans" / "tdm_unet.native.sm_90.plan"
    plan.write_bytes(bytes(plan.stat().st_size))
    builds = Builds()
    _build(small_copy, builds, UNETS)
    assert builds.names == {"tdm_unet.native"}
    assert Bundle.open(small_copy).verify() == 24


@pytest.mark.parametrize("text", ["{}", "", "null", "\xff", "[]"])
def test_a_damaged_journal_is_as_none(text: str, small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    manifest = Bundle.open(small_copy).manifest
    journal = small_copy / "build" / "plans" / "tdm_unet.native.sm_90.json"
    journal.write_bytes(text.encode("latin-1"))
    kept, _ = published_plans(small_copy, manifest.components)
    assert {plan.spec.component for plan in kept} == {Component.SDM_UNET}
    builds = Builds()
    _build(small_copy, builds, UNETS)
    assert not builds.jobs, "the manifest knows the plan as well"


def test_a_plan_that_waits_is_not_listed_as_published(small_copy: Path) -> None:
    def differ(path: Path, manifest: Manifest, records: list[PlanRecord]) -> None:
        raise PlanRefusedError("another picture")

    with pytest.raises(PlanRefusedError):
        _build(small_copy, Builds(), UNETS, compare=differ)
    components = Bundle.open(small_copy).manifest.components
    assert published_plans(small_copy, components) == ([], {})


def test_a_plan_that_nobody_lists_is_gone_after_a_build(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    unlisted = small_copy / "plans" / "tdm_unet.old.sm_70.plan"
    unlisted.write_bytes(b"of another time")
    _build(small_copy, Builds(), PlanRequest(components=(Component.VAE_DECODER,)))
    assert not unlisted.exists()
    assert len(list((small_copy / "plans").iterdir())) == 5


def test_a_build_begins_with_the_published_timing_cache(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    shutil.rmtree(small_copy / "build")
    published = (small_copy / "timing.cache").read_bytes()
    found: list[bytes] = []

    class Looks(Builds):
        def __call__(self, job: PlanJob, on_event: OnEvent) -> BuiltPlan:
            found.append(job.timing_cache.read_bytes())
            return super().__call__(job, on_event)

    _build(small_copy, Looks(), PlanRequest(components=(Component.VAE_DECODER,)))
    assert found == [published]
    cached = (small_copy / "timing.cache").read_bytes()
    assert cached != published, "what the build added is published"


def test_profiles_share_the_plans_that_do_not_depend_on_them(small_copy: Path) -> None:
    builds = Builds()
    _build(small_copy, builds, PlanRequest(profiles=("native", "images", "sizes")))
    assert builds.names - ALL == {
        "tdm_unet.images", "sdm_unet.images", "tdm_unet.sizes", "sdm_unet.sizes",
        "vae_decoder.sizes",
    }  # fmt: skip
    shapes = {
        job.spec.profile: job.spec.shapes[0]
        for job in builds.jobs
        if job.spec.component == "tdm_unet"
    }
    assert shapes["images"]["prompt_embeds"] == ((2, 77, 8), (8, 77, 8), (8, 77, 8))
    assert shapes["sizes"]["latents"] == ((1, 4, 8, 8), (1, 4, 8, 8), (1, 4, 16, 16))


def test_an_unknown_profile_lists_what_there_is(small_copy: Path) -> None:
    with pytest.raises(PlanOptionError, match="native, images, sizes, images-sizes"):
        _build(small_copy, Builds(), PlanRequest(profiles=("huge",)))


def test_an_interrupted_build_keeps_what_it_finished_and_the_bundle_opens(
    small_copy: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _build(small_copy, Builds(stop_at="tdm_unet"))
    assert not Bundle.open(small_copy).manifest.plans
    builds = Builds()
    _build(small_copy, builds)
    assert builds.names == {"tdm_unet.native", *SDM, "vae_decoder.native"}
    assert len(plans_for(Bundle.open(small_copy), TENSORRT, 90, TARGET.version)) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"target": replace(TARGET, version="11.5.0.1")},
        {"request": replace(UNETS, options=PlanOptions(optimization_level=4))},
        {"request": replace(UNETS, options=PlanOptions(workspace_mib=64))},
    ],
)
def test_another_version_or_option_builds_again(change: dict[str, Any], small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    builds = Builds()
    _build(small_copy, builds, **({"request": UNETS} | change))
    assert builds.names == {"tdm_unet.native", *SDM}


def test_another_gpu_gets_plans_beside_those_that_are_there(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    _build(small_copy, Builds(), UNETS, replace(TARGET, architectures=(89,)))
    found = sorted(path.name for path in (small_copy / "plans").iterdir())
    assert found == [
        f"{name}.sm_{architecture}.plan"
        for name in (*SDM, "tdm_unet.native") for architecture in (89, 90)
    ]  # fmt: skip
    assert len(Bundle.open(small_copy).manifest.plans) == 8


def test_plans_of_a_model_that_changed_are_dropped(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    manifest = Bundle.open(small_copy).manifest
    assert len(published_plans(small_copy, manifest.components)[0]) == 4
    tdm = manifest.components[Component.TDM_UNET]
    files = dict(tdm.files)
    files[tdm.onnx] = replace(files[tdm.onnx], sha256="another graph")
    components = manifest.components | {Component.TDM_UNET: replace(tdm, files=files)}
    (kept, *_), timing_cache = published_plans(small_copy, components)
    assert kept.spec.component is Component.SDM_UNET
    assert list(timing_cache) == ["timing.cache"]
    cpu_only = tdm.files | {tdm.cpu_onnx: replace(tdm.files[tdm.cpu_onnx], sha256="new")}
    components = manifest.components | {Component.TDM_UNET: replace(tdm, files=cpu_only)}
    assert len(published_plans(small_copy, components)[0]) == 4, "no plan is built from that file"


def test_a_truncated_plan_is_named_and_built_again(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    plan = small_copy / "plans" / f"{SDM[1]}.sm_90.plan"
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(BundleCorruptError, match=r"sdm_unet.*python -m engines\.build .*bundle"):
        Bundle.open(small_copy)
    builds = Builds()
    _build(small_copy, builds, UNETS)
    assert builds.names == {SDM[1]}
    assert Bundle.open(small_copy).verify() == 24


def test_a_manifest_is_never_ahead_of_its_files(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build(small_copy, Builds(), UNETS)
    replaced = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.name.startswith(SDM[1]) and path.suffix == ".plan":
            raise KeyboardInterrupt
        return replaced(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    options = replace(UNETS, options=PlanOptions(optimization_level=5))
    with pytest.raises(KeyboardInterrupt):
        _build(small_copy, Builds(), options)
    monkeypatch.undo()
    assert Bundle.open(small_copy).verify() == 19, "opens without plans"
    builds = Builds()
    _build(small_copy, builds, options)
    assert not builds.jobs, "both had been finished"
    assert Bundle.open(small_copy).verify() == 24


def test_plans_that_draw_another_picture_are_not_published(small_copy: Path) -> None:
    def differ(path: Path, manifest: Manifest, records: list[PlanRecord]) -> None:
        raise PlanRefusedError("another picture")

    with pytest.raises(PlanRefusedError, match="another picture"):
        _build(small_copy, Builds(), UNETS, compare=differ)
    assert not (small_copy / "plans").exists()
    assert not Bundle.open(small_copy).manifest.plans


def test_the_pictures_are_compared_with_all_plans_there_are(small_copy: Path) -> None:
    compared: list[set[str]] = []

    def note(path: Path, manifest: Manifest, records: list[PlanRecord]) -> None:
        compared.append({record.spec.name for record in records})

    vae = PlanRequest(components=(Component.VAE_DECODER,))
    _build(small_copy, Builds(), UNETS, compare=note)
    _build(small_copy, Builds(), vae, compare=note)
    _build(small_copy, Builds(), vae, compare=note)
    assert [len(names) for names in compared] == [4, 5], "the third build had nothing to compare"
    gone = small_copy / "plans" / "tdm_unet.native.sm_90.plan"
    gone.unlink()
    encoder = PlanRequest(components=(Component.TEXT_ENCODER,))
    _build(small_copy, Builds(), encoder, compare=note)
    assert len(compared[-1]) == 5, "a plan whose file is gone is not among them"


def test_what_was_built_is_said_plan_by_plan(small_copy: Path) -> None:
    said = Said()
    _build(small_copy, Builds(), UNETS, display=said)
    told = [text for text in said.sentences if "MiB of activations" in text]
    assert [text.partition(":")[0] for text in told] == [
        "tdm_unet.native.sm_90", *(f"{name}.sm_90" for name in SDM)
    ]  # fmt: skip
    assert all("4 of 4 computing layers in half precision (engine inspector)" in t for t in told)
    assert all("within 1.0e-03 of the CPU (bound 1.0e-02)" in text for text in told)


def test_a_job_finds_its_files_from_anywhere(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_copy.parent)
    builds = Builds()
    _build(Path(small_copy.name), builds, UNETS)
    job = builds.jobs[0]
    for path in (job.onnx, job.cpu_onnx, job.plan, job.log, job.timing_cache):
        assert path.is_absolute(), path
    assert job.onnx == small_copy / "onnx" / "tdm_unet.onnx"


def test_out_of_memory_at_the_lowest_level_is_not_tried_again(small_copy: Path) -> None:
    builds = Builds(memory_above=-1)
    lowest = replace(UNETS, options=PlanOptions(optimization_level=0))
    with pytest.raises(PlanMemoryError, match="--workspace-mib"):
        _build(small_copy, builds, lowest)
    assert len(builds.jobs) == 1


def test_out_of_memory_is_tried_once_more_at_a_lower_level(small_copy: Path) -> None:
    builds, said = Builds(memory_above=2), Said()
    _build(small_copy, builds, UNETS, display=said)
    assert [job.optimization_level for job in builds.jobs] == [3, 2] * 4
    assert any("once more at optimization level 2" in text for text in said.sentences)
    assert {plan.built.optimization_level for plan in Bundle.open(small_copy).manifest.plans} == {2}
    again = Builds()
    _build(small_copy, again, UNETS)
    assert not again.jobs, "what was asked for is what counts"


def test_out_of_memory_twice_carries_the_forecast(small_copy: Path) -> None:
    builds = Builds(memory_above=0)
    with pytest.raises(PlanMemoryError, match=r"weights 1 MiB, held twice.*--workspace-mib"):
        _build(small_copy, builds, UNETS)
    assert len(builds.jobs) == 2


def test_a_model_that_cannot_fit_is_not_begun(small_copy: Path) -> None:
    builds = Builds()
    with pytest.raises(PlanMemoryError, match="does not fit this GPU"):
        _build(small_copy, builds, UNETS, replace(TARGET, gpu=replace(GPU, free_nbytes=100)))
    assert not builds.jobs


def test_what_plans_add_to_a_bundle_is_told_and_must_have_room(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    _build(small_copy, Builds(), UNETS, display=said)
    assert any("4 plans add about 89 MiB to" in text for text in said.sentences)
    builds = Builds()
    monkeypatch.setattr(
        "engines.plans.forecast.shutil.disk_usage", lambda _: SimpleNamespace(free=10)
    )
    with pytest.raises(PlanBuildError, match=r"whose disk has 1 MiB free; make room"):
        _build(small_copy, builds)
    assert not builds.jobs


def test_the_forecast_is_told_before_anything_is_built(small_copy: Path) -> None:
    said = Said()
    with pytest.raises(KeyboardInterrupt):
        _build(small_copy, Builds(stop_at="tdm"), UNETS, display=said)
    assert sum("GPU memory" in text for text in said.sentences) == 4


@pytest.mark.parametrize(
    ("architecture", "version", "words"),
    [
        (89, TARGET.version, "built for GPU sm_90, this machine has sm_89; rebuild its plans"),
        (90, "11.5.0.1", r"with TensorRT 11\.4\.0\.106, this machine has 11\.5\.0\.1; rebuild"),
    ],
)
def test_plans_for_another_machine_name_both_and_the_command(
    architecture: int, version: str, words: str, small_copy: Path
) -> None:
    _build(small_copy, Builds())
    with pytest.raises(PlanMismatchError, match=rf"{words}.*python -m engines\.build .*bundle"):
        plans_for(Bundle.open(small_copy), TENSORRT, architecture, version)


def test_a_bundle_without_plans_or_with_some_says_so(small_copy: Path) -> None:
    with pytest.raises(PlanMismatchError, match="has no TensorRT plans; build its plans here with"):
        plans_for(Bundle.open(small_copy), TENSORRT, 90, TARGET.version)
    _build(small_copy, Builds(), UNETS)
    with pytest.raises(PlanMismatchError, match="no plan of text_encoder, image_encoder, fusion"):
        plans_for(Bundle.open(small_copy), TENSORRT, 90, TARGET.version)


def test_no_enum_integer_of_tensorrt_reaches_the_manifest(small_copy: Path) -> None:
    _build(small_copy, Builds(), UNETS)
    documents = json.loads((small_copy / "manifest.json").read_text())["plans"]
    assert set(documents[0]["spec"]["options"]) == set(PlanOptions.__dataclass_fields__)
    specs = plan_specs(Bundle.open(small_copy), TARGET, UNETS)
    assert {spec.name: document_of(spec) for spec in specs} == {
        Path(plan["spec"]["component"] + "." + plan["spec"]["profile"] + ".sm_90").name: plan[
            "spec"
        ]
        for plan in documents
    }


def test_a_clock_that_ticks_after_a_workers_answer_does_not_hide_it(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan_job(Bundle.open(small_copy), plan_specs(Bundle.open(small_copy), TARGET, UNETS)[0])
    built = Builds()(job, lambda _: None)
    tick = WorkerMessage(progress=PhaseEvent(kind="tick"))

    class Worker:
        """Answers, and is not gone when its clock ticks once more."""

        def __init__(self, *_: object, **__: object) -> None:
            self._messages = [tick, WorkerMessage(built=built), tick]

        def send(self, document: object) -> None: ...
        def close(self, grace_s: float) -> None: ...
        def receive(self) -> object:
            return document_of(self._messages.pop(0)) if self._messages else None

        def ended(self) -> Ended:
            return Ended(code=0, printed="", last_words="")

    monkeypatch.setattr(child, "Child", Worker)
    heard: list[PhaseEvent] = []
    assert child.plan_in_process(job, heard.append) == built
    assert [event.kind for event in heard] == ["tick", "tick"]
