"""Checkpoints as people have them: read for what they are, or named in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING
from safetensors.torch import save_file

from engines.contract import Component
from export.checkpoint.checkpoint import Checkpoint, CheckpointError, Sources
from export.checkpoint.sources import commits_of
from tests.export.checkpoint.conftest import Tensors, changed, save_bin, write_json

# Blocks whose numbers in the original layout follow from the architecture: (original, diffusers).
_BLOCKS = {
    "input_blocks.1.0": "down_blocks.0.resnets.0",
    "input_blocks.1.1": "down_blocks.0.attentions.0",
    "input_blocks.2.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.3.0": "down_blocks.1.resnets.0",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "output_blocks.0.0": "up_blocks.0.resnets.0",
    "output_blocks.1.0": "up_blocks.0.resnets.1",
    "output_blocks.1.1.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.2.0": "up_blocks.1.resnets.0",
    "output_blocks.2.1": "up_blocks.1.attentions.0",
    "output_blocks.3.0": "up_blocks.1.resnets.1",
    "output_blocks.3.1": "up_blocks.1.attentions.1",
}
_IN_RESNETS = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip


def original_name(name: str) -> str:
    """A U-Net's tensor in CompVis' layout, written from its code and not from diffusers'."""
    mapping: Any = DIFFUSERS_TO_LDM_MAPPING
    whole: dict[str, str] = mapping["unet"]["layers"]
    if name in whole:
        return whole[name]
    for original, block in _BLOCKS.items():
        if name.startswith(block + "."):
            rest = name.removeprefix(block + ".")
            head, _, tail = rest.partition(".")
            inner = f"{_IN_RESNETS[head]}.{tail}" if "resnets" in block else rest
            return f"{original}.{inner}"
    raise AssertionError(name)


@pytest.fixture
def plain(tdm: Tensors) -> Tensors:
    return {name.removeprefix("unet."): tensor for name, tensor in tdm.items()}


def assert_unet(sources: Sources, path: Path, expected: Tensors) -> None:
    unet = Checkpoint.open(changed(sources, tdm=path)).unet(Component.TDM_UNET)
    for name, tensor in unet.state_dict().items():
        assert torch.equal(tensor, expected[name].float())


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", ""])
@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_the_unet_of_a_single_file_checkpoint_is_read(
    prefix: str, kind: str, sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    file = tmp_path / "single" / f"v1-5-pruned.{kind}"
    file.parent.mkdir()
    tensors = {prefix + original_name(name): tensor for name, tensor in plain.items()}
    if prefix == "model.diffusion_model.":
        tensors |= {
            "first_stage_model.encoder.conv_in.weight": torch.ones(2),
            "betas": torch.ones(3),
        }
        averages = {f"model_ema.{n.replace('.', '')}": t * 2 for n, t in list(tensors.items())}
        tensors |= averages
    if kind == "ckpt":
        torch.save({"state_dict": tensors, "global_step": 7}, file)
    else:
        save_file(tensors, file)
    assert_unet(sources, file, plain)
    more = tensors | {f"{prefix}adapter.weight": torch.ones(2)}
    save_file(more, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match=r"has not: .*adapter"):
        Checkpoint.open(changed(sources, tdm=tmp_path / "more.safetensors"))


def test_a_single_file_of_sdxl_is_named(sources: Sources, tmp_path: Path, plain: Tensors) -> None:
    tensors = {"model.diffusion_model." + original_name(n): t for n, t in plain.items()}
    tensors["model.diffusion_model.label_emb.0.0.weight"] = torch.ones(2)
    save_file(tensors, tmp_path / "xl.safetensors")
    with pytest.raises(CheckpointError, match="label_emb"):
        Checkpoint.open(changed(sources, tdm=tmp_path / "xl.safetensors"))


def test_a_single_file_is_no_sdm_and_told_how_to_convert(
    sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    tensors = {"model.diffusion_model." + original_name(n): t for n, t in plain.items()}
    save_file(tensors, tmp_path / "single.safetensors")
    with pytest.raises(CheckpointError, match=r"single-file .*from_single_file") as caught:
        Checkpoint.open(changed(sources, sdm=tmp_path / "single.safetensors"))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("holder", ["model.", "net.", "model.module.", "model._orig_mod.", "pipe."])
@pytest.mark.parametrize("inner", ["unet.", ""])
def test_what_held_the_model_in_training_is_taken_off(
    holder: str, inner: str, sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    path = tmp_path / "held" / "pytorch_model.bin"
    save_bin({f"{holder}{inner}{name}": tensor for name, tensor in plain.items()}, path)
    assert_unet(sources, path, plain)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda plain, ema: {"unet": plain, "ema": ema},
        lambda plain, ema: {"unet": plain, "ema_unet": ema, "optimizer": {"state": {}}},
        lambda plain, ema: {"state_dict": {"unet": plain}, "ema_state_dict": ema, "epoch": 3},
        lambda plain, ema: {"model": plain, "model_ema": ema},
        lambda plain, ema: {"unet": plain, "unet_ema": ema},
    ],
)
def test_averages_in_nested_dictionaries_are_left_aside(
    wrap: Callable[[Tensors, Tensors], Any], sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    path = tmp_path / "nested" / "pytorch_model.bin"
    save_bin(wrap(plain, {name: tensor + 1 for name, tensor in plain.items()}), path)
    assert_unet(sources, path, plain)


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_pytorch_model.non_ema.safetensors",
        "diffusion_pytorch_model.bf16.safetensors",
        "diffusion_pytorch_model.non_ema.bin",
    ],
)
def test_a_lone_variant_of_any_name_is_read(
    name: str, sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    path = tmp_path / "variant" / name
    path.parent.mkdir()
    save_file(plain, path) if name.endswith("safetensors") else torch.save(plain, path)
    assert_unet(sources, path.parent, plain)


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        ("diffusion_pytorch_model.safetensors.index.fp16.json",
         "diffusion_pytorch_model.fp16-0000{}-of-00002.safetensors"),
        ("diffusion_pytorch_model.fp16.safetensors.index.json",
         "diffusion_pytorch_model-0000{}-of-00002.fp16.safetensors"),
        ("pytorch_model.bin.index.fp16.json", "pytorch_model.fp16-0000{}-of-00002.bin"),
        ("diffusion_pytorch_model.safetensors.index.non_ema.json",
         "diffusion_pytorch_model.non_ema-0000{}-of-00002.safetensors"),
    ],
)  # fmt: skip
def test_shards_of_a_variant_are_read(
    index: str, shard: str, sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir()
    weight_map: dict[str, str] = {}
    for part in (1, 2):
        half = {name: plain[name] for name in list(plain)[part - 1 :: 2]}
        file = shard.format(part)
        save_file(half, folder / file) if file.endswith("safetensors") else save_bin(
            half, folder / file
        )
        weight_map |= dict.fromkeys(half, file)
    write_json(folder / index, {"weight_map": weight_map})
    assert_unet(sources, folder, plain)
    (folder / index).unlink()
    with pytest.raises(CheckpointError, match="without their index"):
        Checkpoint.open(changed(sources, tdm=folder))


def test_several_variants_are_not_chosen_from(
    sources: Sources, tmp_path: Path, plain: Tensors
) -> None:
    for variant in ("bf16", "non_ema"):
        save_file(plain, tmp_path / f"model.{variant}.safetensors")
    with pytest.raises(CheckpointError, match="name the file itself"):
        Checkpoint.open(changed(sources, tdm=tmp_path))


def test_dictionaries_that_hold_themselves_end(sources: Sources, tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    save_bin(content, tmp_path / "loop" / "model.bin")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        Checkpoint.open(changed(sources, tdm=tmp_path / "loop" / "model.bin"))


def test_what_a_hub_id_was_resolved_to_is_told_unless_it_was_pinned(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--a--b" / "snapshots" / commit / "unet"
    named = Sources(base="a/b", tdm=f"a/b@{commit}", sdm=str(tmp_path), image_encoder="a/b@main")
    roles = ("base", "tdm", "sdm", "image_encoder")
    commits = {each.role: each for each in commits_of(named, dict.fromkeys(roles, place))}
    assert {role: each.pinned for role, each in commits.items()} == {
        "base": False, "tdm": True, "image_encoder": False,
    }  # fmt: skip
    assert commits["base"].in_words().endswith(f"--base a/b@{commit}")
    assert "--image-encoder" in commits["image_encoder"].in_words()
