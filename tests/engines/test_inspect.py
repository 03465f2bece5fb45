"""engines.inspect and engines.diff: what is told of a bundle, and of two."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines import diff, inspect
from engines.bundle.differences import same_graphs
from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME, Manifest
from engines.contract import Component


def rewritten(bundle: Path, manifest: Manifest) -> None:
    (bundle / MANIFEST_NAME).write_text(manifest.to_json())


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_what_a_bundle_holds_is_told_to_the_byte(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(small_bundle), "--json"]) == 0
    told = answer(capsys)
    listed = Bundle.open(small_bundle).manifest.all_files()
    on_disk = sum((small_bundle / name).stat().st_size for name in listed)
    sizes = told["nbytes"]
    assert isinstance(sizes, dict)
    assert sizes["total"] == on_disk
    assert sizes["total"] == sum(nbytes for name, nbytes in sizes.items() if name != "total")
    assert told["digest"] == Bundle.open(small_bundle).manifest.digest()


def test_the_lines_name_every_component_and_that_no_plan_is_there(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(small_bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for component in Component:
        assert any(line.split()[:1] == [component.value] for line in lines)
    assert "plans: none" in lines
    assert max(map(len, lines)) < 200


def test_what_is_no_bundle_is_said_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(tmp_path / "none")]) == 1
    assert "there is no bundle at" in capsys.readouterr().err.splitlines()[-1]


def test_a_bundle_is_equal_to_its_copy(
    small_bundle: Path, small_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diff.main([str(small_bundle), str(small_copy), "--json"]) == 0
    told = answer(capsys)
    assert told["equal"] is True
    assert told["differences"] == []


def test_one_fact_that_differs_is_told_with_both_sides(
    small_bundle: Path, small_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Bundle.open(small_copy).manifest
    schedule = replace(manifest.noise_schedule, steps_offset=0)
    rewritten(small_copy, replace(manifest, noise_schedule=schedule))
    assert diff.main([str(small_bundle), str(small_copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["all graphs and weights equal", "noise_schedule.steps_offset: 1 | 0"]


def test_other_weights_are_told_by_component(small_bundle: Path) -> None:
    manifest = Bundle.open(small_bundle).manifest
    record = manifest.components[Component.VAE_DECODER]
    files = {name: replace(file, sha256="0" * 64) for name, file in record.files.items()}
    other = {**manifest.components, Component.VAE_DECODER: replace(record, files=files)}
    assert same_graphs(manifest, replace(manifest, components=other)) == {
        component: component is not Component.VAE_DECODER for component in Component
    }
