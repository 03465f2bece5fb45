"""What a bundle is opened with on a CPU: measured here, kept, and followed; nothing is guessed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import Bundle
from engines.bundle.records import from_json, to_json
from engines.engine import HostPrecision, Provider
from engines.errors import ProviderUnavailableError, RequestError
from engines.providers import HOST_PROVIDERS
from engines.tune import chosen, race, record
from engines.tune.__main__ import main
from engines.tune.chosen import chosen_settings, measured_call
from engines.tune.measure import call_time, measured
from engines.tune.record import PROCESSORS_FOLDER, Conditions, TuneRecord, keep, kept
from engines.tune.settings import CallTime, HostSettings, NotMeasured, default_settings
from runtime import FaceDiffuser
from runtime.doctor.__main__ import examined
from tests.runtime.small_request import small

ORT, OPENVINO = Provider.ONNXRUNTIME_CPU, Provider.OPENVINO
FLOAT32, BFLOAT16 = HostPrecision.FLOAT32, HostPrecision.BFLOAT16
CallTimeOf = Callable[[Bundle, HostSettings, float, Sequence[int]], CallTime | NotMeasured]
Times = dict[tuple[Provider, HostPrecision, int], float]


def settings_of(provider: Provider, precision: HostPrecision, threads: int) -> HostSettings:
    return HostSettings(provider=provider, precision=precision, threads=threads)


def clock(times: Times, asked: list[HostSettings]) -> CallTimeOf:
    """Stands for the child processes: a call's seconds by settings; what is left out fails."""

    def time_of(
        _: Bundle, settings: HostSettings, limit_s: float, images: Sequence[int] = ()
    ) -> CallTime | NotMeasured:
        assert limit_s > 0
        asked.append(settings)
        seconds = times.get((settings.provider, settings.precision, settings.threads))
        if seconds is None:
            return NotMeasured(settings=settings, reason="killed")
        images_s = {each: seconds * each for each in images}
        return CallTime(settings=settings, call_s=seconds, load_s=0.5, images_s=images_s)

    return time_of


def raced(bundle: Bundle, times: CallTimeOf, **asked: Any) -> TuneRecord:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engines.tune.race.call_time", times)
        return race.race(bundle, **asked)


@pytest.fixture
def bundle(golden_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The golden bundle by links, on a machine with eight processors, bfloat16 and no cache."""
    copy = tmp_path / "bundle"
    for file in golden_bundle.rglob("*"):
        if file.is_file():
            name = copy / file.relative_to(golden_bundle)
            name.parent.mkdir(parents=True, exist_ok=True)
            name.symlink_to(file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("race", "record", "settings"):
        monkeypatch.setattr(f"engines.tune.{module}.processors", lambda: 8)
    monkeypatch.setattr("engines.openvino.cpu.has_bfloat16", lambda: True)
    return Bundle.open(copy)


@pytest.fixture
def is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "_WORTH_NBYTES", 1)


ALL_ON_8: Times = {
    (ORT, FLOAT32, 8): 6.0, (OPENVINO, FLOAT32, 8): 5.0, (OPENVINO, BFLOAT16, 8): 9.0,
}  # fmt: skip


def test_every_provider_is_measured_in_every_precision_then_the_fastest_on_fewer_threads(
    bundle: Bundle,
) -> None:
    asked: list[HostSettings] = []
    times = ALL_ON_8 | {(OPENVINO, FLOAT32, 4): 4.0, (OPENVINO, FLOAT32, 2): 4.2}
    found = raced(bundle, times=clock(times, asked))
    assert [(each.provider, each.precision, each.threads) for each in asked] == [
        (ORT, FLOAT32, 8), (OPENVINO, FLOAT32, 8), (OPENVINO, BFLOAT16, 8),
        (OPENVINO, FLOAT32, 4), (OPENVINO, FLOAT32, 2),
    ]  # fmt: skip
    fastest = found.fastest()
    assert fastest is not None
    assert fastest.settings == settings_of(OPENVINO, FLOAT32, 4)
    assert chosen_settings(bundle, None, None, None) == settings_of(OPENVINO, FLOAT32, 4)
    (drawn_by,) = (each for each in examined(bundle.path) if each.about == "provider")
    assert drawn_by.text == (
        "pictures are drawn on openvino in float32 on 4 threads, the fastest here"
    )


@pytest.mark.parametrize(
    ("provider", "precision", "threads", "expected"),
    [
        (None, BFLOAT16, None, (OPENVINO, BFLOAT16, 8)),
        (ORT, None, None, (ORT, FLOAT32, 8)),
        (None, None, 8, (OPENVINO, FLOAT32, 8)),
        # Nothing of this was measured: what is certain.
        (ORT, None, 3, (ORT, FLOAT32, 3)),
    ],
)
def test_what_is_asked_for_wins_over_what_is_fastest(
    provider: Provider | None, precision: HostPrecision | None, threads: int | None,
    expected: tuple[Provider, HostPrecision, int], bundle: Bundle,
) -> None:  # fmt: skip
    raced(bundle, times=clock(ALL_ON_8 | {(OPENVINO, FLOAT32, 4): 4.0}, []))
    found = chosen_settings(bundle, provider, precision, threads)
    assert found == settings_of(*expected)


def test_the_fastest_alone_is_also_measured_with_several_images(bundle: Bundle) -> None:
    asked: list[HostSettings] = []
    said: list[str] = []
    found = raced(bundle, times=clock(ALL_ON_8, asked), together=True, say=said.append)
    assert asked[-1] == settings_of(OPENVINO, FLOAT32, 8)
    assert {each.settings: each.images_s for each in found.calls if each.images_s} == {
        settings_of(OPENVINO, FLOAT32, 8): {1: 5.0, 2: 10.0, 4: 20.0}
    }
    assert "  with 4 images 20 s" in said
    assert len(found.calls) == len({each.settings for each in found.calls})
    # A race without it, as at an opening, leaves it be.
    again = raced(bundle, times=clock(ALL_ON_8, []))
    assert again.fastest() == found.fastest()
    assert measured_call(bundle, settings_of(OPENVINO, FLOAT32, 8)) == found.fastest()
    assert measured_call(bundle, settings_of(OPENVINO, FLOAT32, 1)) is None


def test_what_cannot_be_measured_is_left_out_and_said(bundle: Bundle) -> None:
    said: list[str] = []
    times: Times = {(ORT, FLOAT32, 8): 6.0}
    found = raced(bundle, say=said.append, times=clock(times, []))
    assert [each.settings.provider for each in found.calls] == [ORT]
    assert "openvino in bfloat16 on 8 threads: not measured (killed)" in said
    with pytest.raises(ProviderUnavailableError, match=r"nothing could be measured: .*killed"):
        raced(bundle, provider=OPENVINO, times=clock({}, []))


def test_a_race_ends_at_its_limit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, *range(0, 1000, 60)])
    monkeypatch.setattr("engines.tune.race.time.monotonic", lambda: next(seconds))
    asked: list[HostSettings] = []
    raced(bundle, limit_s=100, times=clock(ALL_ON_8, asked))
    assert len(asked) == 2


def test_a_large_model_is_measured_at_its_first_opening_alone_and_told(
    bundle: Bundle,
    is_large: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[HostSettings] = []
    monkeypatch.setattr("engines.tune.race.call_time", clock(ALL_ON_8, asked))
    with caplog.at_level(logging.WARNING, "face_diffuser.tune"):
        first = chosen_settings(bundle, None, None, None)
    assert first == settings_of(OPENVINO, FLOAT32, 8)
    words = " ".join(each.getMessage() for each in caplog.records)
    assert "in at most 180 s" in words
    assert "python -m engines.tune" in words
    assert "openvino in float32 on 8 threads is the fastest: 5 s a call" in words
    measured_once = len(asked)
    assert chosen_settings(bundle, None, None, None) == first
    assert len(asked) == measured_once
    # Where there is no choice, nothing is measured either.
    asked.clear()
    (bundle.path / PROCESSORS_FOLDER).rename(bundle.path / "elsewhere")
    assert chosen_settings(bundle, ORT, None, None) == settings_of(ORT, FLOAT32, 8)
    assert not asked


def test_a_small_model_is_not_measured_unasked(bundle: Bundle) -> None:
    assert chosen_settings(bundle, None, None, None) == settings_of(ORT, FLOAT32, 8)
    assert chosen_settings(bundle, OPENVINO, None, 2) == settings_of(OPENVINO, FLOAT32, 2)
    assert kept(bundle) is None


def test_nobody_is_measured_against_their_will(
    bundle: Bundle, is_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_DIFFUSER_TUNE", "never")
    assert chosen_settings(bundle, None, None, None) == settings_of(ORT, FLOAT32, 8)


@pytest.mark.parametrize(
    "changed",
    [
        lambda it: replace(it, processor="another"),
        lambda it: replace(it, processors=4),
        lambda it: replace(it, versions={"openvino": "1.0"}),
        lambda it: replace(it, model="0" * 64),
    ],
)
def test_what_was_measured_under_other_conditions_is_not_followed(
    changed: Callable[[Conditions], Conditions], bundle: Bundle
) -> None:
    call = CallTime(settings=settings_of(OPENVINO, BFLOAT16, 1), call_s=1.0, load_s=1.0)
    here = Conditions.of(bundle)
    other = TuneRecord(conditions=changed(here), calls=(call,))
    keep(bundle, other)
    assert kept(bundle) is None
    # Nor under a name that it was given since.
    path = bundle.path / PROCESSORS_FOLDER / here.file_name()
    path.write_text(to_json(other))
    assert kept(bundle) is None
    path.write_text(to_json(replace(other, conditions=here)))
    assert kept(bundle) == replace(other, conditions=here)


@pytest.mark.parametrize("content", ["", "{}", "[" * 9000, '{"conditions": null}', "\0" * 64])
def test_a_damaged_record_is_measured_again(content: str, bundle: Bundle) -> None:
    path = bundle.path / PROCESSORS_FOLDER / Conditions.of(bundle).file_name()
    path.parent.mkdir()
    path.write_text(content)
    assert kept(bundle) is None
    assert chosen_settings(bundle, None, None, None) == settings_of(ORT, FLOAT32, 8)


def test_where_nothing_can_be_written_the_users_cache_keeps_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.path / PROCESSORS_FOLDER).write_text("in the way")
    found = raced(bundle, times=clock(ALL_ON_8, []))
    assert kept(bundle) == found
    assert [*(tmp_path / "cache" / "face-diffuser" / PROCESSORS_FOLDER).iterdir()]


def test_a_call_is_timed_in_a_process_of_its_own(bundle: Bundle) -> None:
    settings = settings_of(ORT, FLOAT32, 1)
    found = call_time(bundle, settings, 120)
    assert isinstance(found, CallTime), found
    assert found.settings == settings
    assert 0 < found.call_s < 60
    several = call_time(bundle, settings, 120, (1, 2))
    assert isinstance(several, CallTime), several
    assert several.images_s.keys() == {1, 2}
    assert several.call_s == several.images_s[1] < several.images_s[2]
    broken = call_time(bundle, settings_of(ORT, BFLOAT16, 1), 120)
    assert isinstance(broken, NotMeasured)
    assert "bfloat16" in broken.reason
    late = call_time(bundle, settings, 0.01)
    assert isinstance(late, NotMeasured)
    assert "not done after" in late.reason


def test_the_median_of_the_calls_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # Around opening: 0 and 1; then calls of 10, 30 and 20 s.
    now = iter([0.0, 1.0, 100.0, 110.0, 200.0, 230.0, 300.0, 320.0])
    monkeypatch.setattr("engines.tune.measure.time.perf_counter", lambda: next(now))
    found = measured(bundle, settings_of(ORT, FLOAT32, 1))
    assert found.call_s == 20.0
    assert found.load_s == 1.0


def test_the_command_keeps_what_it_measured(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.tune.race.call_time", clock(ALL_ON_8, []))
    assert main([str(bundle.path)]) == 0
    printed = capsys.readouterr().out
    assert "onnxruntime-cpu in float32 on 8 threads: 6 s a call" in printed
    assert "openvino in float32 on 8 threads is the fastest" in printed
    assert main([str(bundle.path), "--precision", "bfloat16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fastest"]["settings"]["precision"] == "bfloat16"
    assert from_json(TuneRecord, json.dumps({k: told[k] for k in ("conditions", "calls")}))
    assert main([str(bundle.path), "--provider", "onnxruntime-cpu", "--precision", "bfloat16"]) == 1
    assert "is installed that fits" in capsys.readouterr().err


def test_a_precision_that_is_none_or_cannot_be_had_is_refused(bundle: Bundle) -> None:
    with pytest.raises(RequestError, match="must be one of float32, bfloat16, got 'fp32'"):
        FaceDiffuser.open(bundle.path, precision="fp32")
    with pytest.raises(RequestError, match="precision is for onnxruntime-cpu and openvino"):
        FaceDiffuser.open(bundle.path, precision="float32", provider="tensorrt")
    with pytest.raises(ProviderUnavailableError, match="does not compute in bfloat16"):
        FaceDiffuser.open(bundle.path, precision="bfloat16", provider="onnxruntime-cpu")
    with pytest.raises(ProviderUnavailableError, match="does not compute in bfloat16"):
        default_settings(ORT, BFLOAT16, None)


def test_a_picture_says_what_it_was_computed_in(golden_bundle: Path) -> None:
    request = small()
    with FaceDiffuser.open(golden_bundle, provider="openvino", threads=1) as opened:
        exact = opened.generate(request)
        assert opened.host_settings == settings_of(OPENVINO, FLOAT32, 1)
    assert exact.precision is FLOAT32
    assert exact.metadata()["precision"] == "float32"
    if BFLOAT16 not in HOST_PROVIDERS[OPENVINO].precisions():
        pytest.skip("this processor has no bfloat16")
    with FaceDiffuser.open(golden_bundle, precision="bfloat16", threads=1) as opened:
        assert opened.provider == "openvino"
        rounded = opened.generate(request)
    assert rounded.metadata()["precision"] == "bfloat16"
    assert not np.array_equal(np.asarray(exact.images), np.asarray(rounded.images))


def test_the_files_of_two_conditions_differ(bundle: Bundle) -> None:
    here = Conditions.of(bundle)
    assert here.file_name() != replace(here, processors=4).file_name()
    assert os.sep not in here.file_name()
    assert record.PROCESSORS_FOLDER not in here.file_name()
