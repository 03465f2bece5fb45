"""A bundle of plans alone: what is dropped, what says so, and what cannot be done any more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines import build as engines_build
from engines import commands, verify
from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.errors import PlanBuildError, ProviderUnavailableError
from engines.plans import here
from engines.plans.bundle_plans import PlanRequest, build_plans
from engines.plans.plans_only import keep_plans_only
from export import build as export_build
from runtime import FaceDiffuser
from runtime.doctor import __main__ as doctor
from tests.doubles.plan_builds import Builds, Said
from tests.engines.conftest import RTX_TARGET

ALONE = PlanRequest(plans_only=True)


def _build(bundle: Path, request: PlanRequest, display: Said | None = None) -> Builds:
    builds = Builds()
    build_plans(bundle, RTX_TARGET, request, display or Said(), lambda *_: None, builds)
    return builds


@pytest.fixture
def alone(small_copy: Path) -> Path:
    """A bundle that dropped its ONNX models, which a build command made."""
    commands.remember_build(small_copy, ["--fp16", commands.ONNX_ONLY])
    _build(small_copy, PlanRequest())
    keep_plans_only(small_copy)
    return small_copy


def test_the_models_go_and_everything_else_opens_and_verifies(small_copy: Path) -> None:
    _build(small_copy, PlanRequest())
    before = Bundle.open(small_copy)
    files = before.verify()
    told = keep_plans_only(small_copy)
    assert not (small_copy / "onnx").exists()
    after = Bundle.open(small_copy)
    assert after.verify() == files - len(before.manifest.model_files()) > 7
    assert replace(after.manifest, plans_only=False) == before.manifest, "what plans are of is kept"
    for words in (
        "drawing on CPUs",
        "other GPUs",
        "comparing plans",
        "8 plans were executed on no",
    ):
        assert words in told


def test_models_without_a_plan_are_kept(small_copy: Path) -> None:
    _build(small_copy, PlanRequest(components=(Component.TDM_UNET,)))
    with pytest.raises(PlanBuildError, match=r"no plan of text_encoder, .*, so its ONNX"):
        keep_plans_only(small_copy)
    assert not Bundle.open(small_copy).manifest.plans_only
    Bundle.open(small_copy).verify()


def test_plans_of_two_targets_are_not_put_together(small_copy: Path) -> None:
    unet, *rest = Component
    _build(small_copy, PlanRequest(components=(unet,)))
    other = replace(RTX_TARGET, architectures=(75,))
    build_plans(
        small_copy, other, PlanRequest(components=tuple(rest)), Said(), lambda *_: None, Builds()
    )
    with pytest.raises(PlanBuildError, match=f"no plan of {unet},"):
        keep_plans_only(small_copy)


def test_a_kill_while_models_are_dropped_leaves_a_bundle_that_opens(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    _build(small_copy, PlanRequest())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engines.plans.plans_only.shutil.rmtree", killed)
        keep_plans_only(small_copy)
    assert Bundle.open(small_copy).manifest.plans_only
    keep_plans_only(small_copy)
    assert not (small_copy / "onnx").exists()


def test_a_repeated_build_keeps_all_and_a_further_plan_names_the_export(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not _build(alone, PlanRequest()).jobs
    with pytest.raises(ProviderUnavailableError, match="building plans needs them") as told:
        _build(alone, PlanRequest(profiles=("sizes",)))
    assert told.value.fix == f"python -m export.build --fp16 --onnx-only --out {alone}"
    monkeypatch.setattr(engines_build, "plan_target", lambda *_: RTX_TARGET)
    assert engines_build.main([str(alone)]) == 0
    assert "holds plans alone now" in capsys.readouterr().err


def test_a_damaged_plan_names_the_export_as_no_build_here_makes_it_again(alone: Path) -> None:
    (plan, *_) = (alone / "plans").iterdir()
    plan.unlink()
    with pytest.raises(
        Exception, match=r"is missing; build it again: .*export\.build --fp16 --out"
    ):
        Bundle.open(alone)


def test_verify_and_doctor_say_what_such_a_bundle_is(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main([str(alone), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plans_only"] is True
    assert verify.main([str(alone)]) == 0
    assert "it holds plans alone" in capsys.readouterr().out
    doctor.main(["--bundle", str(alone), "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {each["about"]: each for each in report["findings"]}
    assert found["ONNX models"]["state"] == "note"
    assert "holds plans alone" in found["ONNX models"]["text"]
    assert found["provider"]["state"] == "problem"
    assert found["provider"]["fix"].startswith("python -m export.build")


@pytest.mark.parametrize("provider", ["onnxruntime-cpu", "openvino"])
def test_a_provider_that_computes_from_the_models_is_refused_in_one_sentence(
    provider: str, alone: Path
) -> None:
    with pytest.raises(ProviderUnavailableError, match=rf"plans alone.* and {provider} needs them"):
        FaceDiffuser.open(alone, provider=provider)


def test_where_no_plans_can_be_built_plans_alone_is_an_error_and_nothing_is_dropped(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*_: object) -> None:
        raise ProviderUnavailableError("no library here")

    monkeypatch.setattr(here, "plan_target", none_here)
    draw = engines_build.draw
    with pytest.raises(ProviderUnavailableError, match="no library here"):
        here.build_if_possible(small_copy, ALONE, Said(), draw)
    assert here.build_if_possible(small_copy, PlanRequest(), Said(), draw) is None
    assert (small_copy / "onnx").is_dir()


def test_an_export_of_neither_half_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        export_build.main(["--onnx-only", "--plans-only"])
    assert stopped.value.code == 2
    assert "name one" in capsys.readouterr().err
