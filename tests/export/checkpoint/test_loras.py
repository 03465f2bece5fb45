"""LoRAs: merged as diffusers merges them, or refused before any work, and no part in silence."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engines.contract import Component
from export.build import main
from export.checkpoint.checkpoint import Checkpoint, CheckpointError, Sources
from export.checkpoint.modules_from_weights import unet_from
from export.options import Lora, lora
from export.packages import MissingPackagesError
from tests.export.checkpoint.conftest import UNET, Tensors, save_bin

pytest.importorskip("peft", reason="the extra export brings peft, which merges LoRAs")

TDM = Component.TDM_UNET
Changes = dict[str, tuple[Tensor, Tensor]]


def layers_of(unet: nn.Module) -> dict[str, Any]:
    """What people's LoRAs change: attention, feed-forward, projections and convolutions."""
    marks = ("attn", ".ff.", "proj", "conv1", "samplers")
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and any(mark in name for mark in marks)
    }


@pytest.fixture
def changes() -> Changes:
    """By layer: down [2, in, ...] and up [out, 2, ...]."""
    generator = torch.Generator().manual_seed(5)
    pairs = {}
    for name, layer in layers_of(unet_from(UNET)).items():
        out, *rest = layer.weight.shape
        down = torch.randn(2, *rest, generator=generator)
        pairs[name] = (down, torch.randn(out, 2, *[1] * (len(rest) - 1), generator=generator))
    return pairs


def peft_names(pairs: Changes, prefix: str = "unet.") -> Tensors:
    return {
        f"{prefix}{name}.lora_{letter}.weight": tensor.clone()
        for name, pair in pairs.items()
        for letter, tensor in zip("AB", pair, strict=True)
    }


def older_names(pairs: Changes) -> Tensors:
    return {
        f"unet.{name}.lora.{way}.weight": tensor.clone()
        for name, pair in pairs.items()
        for way, tensor in zip(("down", "up"), pair, strict=True)
    }


def kohya_names(pairs: Changes, alpha: float = 1.0) -> Tensors:
    tensors = {}
    for name, (down, up) in pairs.items():
        key = "lora_unet_" + name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = down, up
        tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def by_arithmetic(before: nn.Module, pairs: Changes, scale: float) -> Tensors:
    """W + scale * up @ down, of each changed layer."""
    merged = {}
    for name, (down, up) in pairs.items():
        added = (up.flatten(1) @ down.flatten(1)).reshape(layers_of(before)[name].weight.shape)
        merged[f"{name}.weight"] = layers_of(before)[name].weight.detach() + scale * added
    return merged


@pytest.mark.parametrize("layout", [peft_names, older_names, kohya_names])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_lora_is_merged_as_diffusers_itself_merges_it(
    layout: Callable[[Changes], Tensors],
    kind: str,
    sources: Sources,
    tmp_path: Path,
    changes: Changes,
) -> None:
    from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin

    tensors, file = layout(changes), tmp_path / f"style.{kind}"
    save_file(tensors, file) if kind == "safetensors" else save_bin(tensors, file)
    plain = Checkpoint.open(sources)
    unmodified: Any = plain.unet(TDM)
    mixin: Any = StableDiffusionLoraLoaderMixin
    state, alphas = mixin.lora_state_dict(dict(tensors), unet_config=unmodified.config)
    unmodified.load_lora_adapter(state, prefix="unet", network_alphas=alphas)
    unmodified.fuse_lora(lora_scale=0.8)
    unmodified.unload_lora()

    checkpoint = Checkpoint.open(sources, {TDM: [Lora(path=file, weight=0.8)]})
    merged = checkpoint.unet(TDM)
    for name, expected in unmodified.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], expected, rtol=1e-5, atol=1e-5)
    assert [type(module) for module in merged.modules()] == [
        type(module) for module in plain.unet(TDM).modules()
    ]
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    scale = 0.8 * (0.5 if layout is kohya_names else 1)
    for name, tensor in by_arithmetic(plain.unet(TDM), changes, scale).items():
        torch.testing.assert_close(merged.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)

    assert checkpoint.digest(TDM) != plain.digest(TDM)
    assert checkpoint.digest(Component.SDM_UNET) == plain.digest(Component.SDM_UNET)
    assert checkpoint.source_digests().keys() - plain.source_digests().keys() == {
        f"tdm_lora_1/style.{kind}:0.8"
    }


def test_each_layers_own_alpha_is_followed_where_diffusers_leaves_it_out(
    sources: Sources, tmp_path: Path, changes: Changes
) -> None:
    tensors = kohya_names(changes)
    expected: Tensors = {}
    before = Checkpoint.open(sources).unet(TDM)
    for number, (name, pair) in enumerate(changes.items()):
        alpha = 1.0 + number % 3
        tensors["lora_unet_" + name.replace(".", "_") + ".alpha"] = torch.tensor(alpha)
        expected |= by_arithmetic(before, {name: pair}, alpha / 2)
    save_file(tensors, tmp_path / "style.safetensors")
    loras = {TDM: [Lora(path=tmp_path / "style.safetensors")]}
    merged = Checkpoint.open(sources, loras).unet(TDM).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-5)


def test_pefts_own_folder_is_read_with_its_alpha(
    sources: Sources, tmp_path: Path, changes: Changes
) -> None:
    save_file(peft_names(changes, "base_model.model."), tmp_path / "adapter_model.safetensors")
    config = {"r": 2, "lora_alpha": 6, "target_modules": list(changes), "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    before = Checkpoint.open(sources).unet(TDM)
    merged = Checkpoint.open(sources, {TDM: [Lora(path=tmp_path)]}).unet(TDM).state_dict()
    for name, tensor in by_arithmetic(before, changes, 3.0).items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-5)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is missing"):
        Checkpoint.open(sources, {TDM: [Lora(path=tmp_path)]})


def test_several_loras_add_up_and_the_other_unet_stays(
    sources: Sources, tmp_path: Path, changes: Changes
) -> None:
    save_file(peft_names(changes, ""), tmp_path / "a.safetensors")
    save_file(kohya_names(changes, alpha=2.0), tmp_path / "b.safetensors")
    loras = [
        Lora(path=tmp_path / "a.safetensors", weight=0.5),
        Lora(path=tmp_path / "b.safetensors", weight=-0.25),
    ]
    before = Checkpoint.open(sources)
    checkpoint = Checkpoint.open(sources, {Component.SDM_UNET: loras})
    merged = checkpoint.unet(Component.SDM_UNET).state_dict()
    expected = by_arithmetic(before.unet(Component.SDM_UNET), changes, 0.25)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-5)
    untouched = before.unet(TDM).state_dict()
    assert all(torch.equal(t, untouched[n]) for n, t in checkpoint.unet(TDM).state_dict().items())
    assert {"sdm_lora_1/a.safetensors:0.5", "sdm_lora_2/b.safetensors:-0.25"} <= set(
        checkpoint.source_digests()
    )


def test_what_a_lora_changes_in_a_text_encoder_is_named(
    sources: Sources, tmp_path: Path, changes: Changes
) -> None:
    beside = kohya_names(changes)
    key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    beside |= {f"{key}.lora_down.weight": torch.ones(2, 16), f"{key}.alpha": torch.tensor(1.0)}
    beside[f"{key}.lora_up.weight"] = torch.ones(16, 2)
    save_file(beside, tmp_path / "both.safetensors")
    checkpoint = Checkpoint.open(sources, {TDM: [Lora(path=tmp_path / "both.safetensors")]})
    (said,) = checkpoint.remarks()
    assert f"changes {len(changes)} layers" in said
    assert "2 tensors for a text encoder are left out" in said


def nan(tensors: Tensors) -> Tensors:
    name = next(iter(tensors))
    return tensors | {name: torch.full_like(tensors[name], float("nan"))}


def without_first(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[1:])


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}


def wider(tensors: Tensors) -> Tensors:
    """As of a base whose prompt embeds are wider."""
    return {n: torch.ones(2, 24) if "attn2.to_k.lora_A" in n else t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "NaN or infinity"),
        (without_first, "without down_blocks"),
        (wider, "LoRA of another base"),
        (renamed("down_blocks.0", "down_blocks.7"), "changes no layer"),
        (renamed("unet.", "transformer.single_blocks."), "Flux"),
        (renamed("unet.", "text_encoder."), "changes no layer"),
        (renamed("unet.", "text_encoder_2."), "SDXL"),
        (renamed("unet.", "lora_te2_"), "SDXL"),
        (renamed("lora_A", "hada_w1_a"), "LyCORIS"),
        (renamed("lora_A.weight", "dora_scale"), "DoRA"),
        (lambda tensors: {n: torch.zeros_like(t) for n, t in tensors.items()}, "changes nothing"),
        (lambda tensors: tensors | {"unet.conv_in.diff": torch.ones(1)}, "LyCORIS"),
        (lambda tensors: tensors | {"unet.conv_in.bias": torch.ones(8)}, "changes no layer"),
        (lambda tensors: {n: t * 1e30 for n, t in tensors.items()}, "infinite"),
        (lambda _: {"weight": torch.ones(2, 2)}, "changes no layer"),
    ],
)
def test_a_lora_that_would_not_be_merged_whole_is_refused_with_a_sentence(
    spoil: Callable[[Tensors], Tensors],
    reason: str,
    sources: Sources,
    tmp_path: Path,
    changes: Changes,
) -> None:
    save_file(spoil(peft_names(changes)), tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=reason) as caught:
        checkpoint = Checkpoint.open(sources, {TDM: [Lora(path=tmp_path / "bad.safetensors")]})
        assert reason in ("changes nothing", "infinite")  # all else is known before any work
        checkpoint.unet(TDM)
    assert "bad.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("field", [{"r": 4}, {"target_modules": ["conv_in"]}, {"no_such": 1}])
def test_settings_that_disagree_with_the_tensors_are_refused(
    field: dict[str, object], sources: Sources, tmp_path: Path, changes: Changes
) -> None:
    settings = {"r": 2, "lora_alpha": 2, "target_modules": list(changes)} | field
    text = json.dumps({f"unet.{name}": value for name, value in settings.items()})
    file = tmp_path / "bad.safetensors"
    save_file(peft_names(changes), file, {"lora_adapter_metadata": text})
    with pytest.raises(CheckpointError, match="cannot be merged"):
        Checkpoint.open(sources, {TDM: [Lora(path=file)]})


def test_a_path_may_have_colons_and_a_weight_follows_the_last(tmp_path: Path) -> None:
    odd = tmp_path / "a:0.5"
    odd.touch()
    assert lora("style.safetensors") == Lora(path=Path("style.safetensors"))
    assert lora("style.safetensors:0.8") == Lora(path=Path("style.safetensors"), weight=0.8)
    assert lora("s.safetensors:-1e-1") == Lora(path=Path("s.safetensors"), weight=-0.1)
    assert lora(r"C:\my loras\style.safetensors") == Lora(
        path=Path(r"C:\my loras\style.safetensors")
    )
    assert lora(r"C:\style.safetensors:2").weight == 2
    assert lora(str(odd)) == Lora(path=odd)
    assert lora(f"{odd}:0.25") == Lora(path=odd, weight=0.25)
    for word in ("style:nan", "style:inf"):
        with pytest.raises(argparse.ArgumentTypeError, match="finite"):
            lora(word)


def test_a_lora_that_is_nowhere_or_without_peft_ends_with_what_to_type(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Changes
) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors is missing"):
        Checkpoint.open(sources, {TDM: [Lora(path=tmp_path / "no.safetensors")]})
    with pytest.raises(CheckpointError, match="has no LoRA"):
        Checkpoint.open(sources, {TDM: [Lora(path=tmp_path / "SDM")]})
    save_file(peft_names(changes), tmp_path / "style.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingPackagesError, match="peft"):
        Checkpoint.open(sources, {TDM: [Lora(path=tmp_path / "style.safetensors")]})


def test_a_lora_for_random_weights_is_a_wrong_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--random-weights", "--sdm-lora", "style.safetensors:0.5"])
    assert caught.value.code == 2
    assert "leave out --sdm-lora" in capsys.readouterr().err
