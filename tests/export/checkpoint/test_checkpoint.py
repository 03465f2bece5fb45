"""Checkpoints: every layout that is read, and every way in which a file can be wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engines.contract import Component
from export import shipped
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint, CheckpointError, Sources
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.model_facts import noise_schedule_of
from export.checkpoint.modules_from_weights import (
    fitted,
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from export.checkpoint.random_weights import (
    TEXT_CONFIG,
    UNET_CONFIG,
    VAE_CONFIG,
    VISION_CONFIG,
    RandomCheckpoint,
    random_checkpoint,
)
from export.checkpoint.weight_files import WeightFiles
from export.graph.modules import module_of
from tests.export.checkpoint.conftest import (
    TEXT,
    UNET,
    WIDTH,
    Tensors,
    changed,
    save_bin,
    write_json,
)


def assert_holds(module: nn.Module, tensors: Tensors, prefix: str) -> None:
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensors[prefix + name].float())
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_released_layout_gives_each_component_its_weights(
    sources: Sources, sdm: Tensors, tdm: Tensors
) -> None:
    checkpoint = Checkpoint.open(sources)
    text_encoder = checkpoint.text_encoder()
    assert_holds(text_encoder, sdm, "text_encoder.")
    assert_holds(checkpoint.image_encoder(), sdm, "image_encoder.")
    assert_holds(checkpoint.fusion_mlp(), sdm, "postfuse_module.")
    assert_holds(checkpoint.unet(Component.SDM_UNET), sdm, "unet.")
    assert_holds(checkpoint.unet(Component.TDM_UNET), tdm, "unet.")
    tokens = torch.zeros(2, 77, dtype=torch.long)
    assert text_encoder(tokens).last_hidden_state.shape == (2, 77, WIDTH)


def test_a_vae_with_old_attention_names_is_read(sources: Sources) -> None:
    vae = Checkpoint.open(sources).vae_decoder()
    stored = torch.load(Path(sources.base) / "vae" / "diffusion_pytorch_model.bin")
    attention = "decoder.mid_block.attentions.0"
    expected = stored[f"{attention}.proj_attn.weight"]
    assert torch.equal(vae.state_dict()[f"{attention}.to_out.0.weight"], expected)


def test_safetensors_are_preferred(sources: Sources, tmp_path: Path, tdm: Tensors) -> None:
    other = {name: tensor + 1 for name, tensor in tdm.items()}
    save_file(other, tmp_path / "TDM" / "model.safetensors")
    assert_holds(Checkpoint.open(sources).unet(Component.TDM_UNET), other, "unet.")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read(sources: Sources, tmp_path: Path, tdm: Tensors, kind: str) -> None:
    folder, stem = tmp_path / "sharded", "model" if kind == "safetensors" else "pytorch_model"
    weight_map: dict[str, str] = {}
    folder.mkdir()
    for part in range(2):
        file = f"{stem}-{part + 1:05}-of-00002.{kind}"
        shard = {name: tdm[name] for name in list(tdm)[part::2]}
        weight_map |= dict.fromkeys(shard, file)
        if kind == "bin":
            save_bin(shard, folder / file)
        else:
            save_file(shard, folder / file)
    write_json(folder / f"{stem}.{kind}.index.json", {"weight_map": weight_map})
    checkpoint = Checkpoint.open(changed(sources, tdm=folder))
    assert_holds(checkpoint.unet(Component.TDM_UNET), tdm, "unet.")

    (folder / f"{stem}-00002-of-00002.{kind}").unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-00002.* is missing"):
        Checkpoint.open(changed(sources, tdm=folder))


def test_a_module_prefix_and_mixed_types_are_read(
    sources: Sources, tmp_path: Path, sdm: Tensors
) -> None:
    mixed = {
        f"module.{name}": tensor.bfloat16() if name.startswith("text") else tensor
        for name, tensor in sdm.items()
    }
    save_bin(mixed, tmp_path / "SDM" / "pytorch_model.bin")
    checkpoint = Checkpoint.open(sources)
    rounded = {name: tensor.bfloat16() for name, tensor in sdm.items()}
    assert_holds(checkpoint.text_encoder(), rounded, "text_encoder.")
    assert_holds(checkpoint.unet(Component.SDM_UNET), sdm, "unet.")


def test_a_text_model_level_in_the_names_is_read(
    sources: Sources, tmp_path: Path, sdm: Tensors
) -> None:
    level = ("text_encoder.", "text_encoder.text_model.")
    save_bin(
        {name.replace(*level): tensor for name, tensor in sdm.items()},
        tmp_path / "SDM" / "pytorch_model.bin",
    )
    assert_holds(Checkpoint.open(sources).text_encoder(), sdm, "text_encoder.")


@pytest.mark.parametrize("inner", ["", "unet"])
def test_a_diffusers_folder_serves_as_tdm(
    sources: Sources, tmp_path: Path, tdm: Tensors, inner: str
) -> None:
    folder = tmp_path / "diffusers" / inner
    write_json(folder / "config.json", UNET)
    plain = {name.removeprefix("unet."): tensor for name, tensor in tdm.items()}
    save_file(plain, folder / "diffusion_pytorch_model.safetensors")
    checkpoint = Checkpoint.open(changed(sources, tdm=tmp_path / "diffusers"))
    assert_holds(checkpoint.unet(Component.TDM_UNET), plain, "")
    assert "tdm/config.json" in checkpoint.source_digests()
    with pytest.raises(CheckpointError, match="not a SDM checkpoint"):
        Checkpoint.open(changed(sources, sdm=folder))


def test_one_folder_with_both_roles_serves_as_both(sources: Sources, tmp_path: Path) -> None:
    both = changed(sources, tdm=tmp_path, sdm=tmp_path)
    assert Checkpoint.open(both).source_digests() == Checkpoint.open(sources).source_digests()


def test_one_checkpoint_in_both_roles_has_one_unet_digest(sources: Sources) -> None:
    fastcomposer = Checkpoint.open(changed(sources, tdm=Path(sources.sdm)))
    assert fastcomposer.digest(Component.TDM_UNET) == fastcomposer.digest(Component.SDM_UNET)
    released = Checkpoint.open(sources)
    assert released.digest(Component.TDM_UNET) != released.digest(Component.SDM_UNET)


def test_a_digest_follows_the_configuration(sources: Sources) -> None:
    before = Checkpoint.open(sources).digest(Component.TEXT_ENCODER)
    write_json(Path(sources.base) / "text_encoder" / "config.json", TEXT | {"hidden_act": "gelu"})
    assert Checkpoint.open(sources).digest(Component.TEXT_ENCODER) != before


def test_missing_unexpected_and_misshaped_tensors_are_named(
    sources: Sources, tmp_path: Path, tdm: Tensors
) -> None:
    wrong = dict(tdm)
    wrong["unet.surplus.weight"] = wrong.pop("unet.conv_out.bias")
    wrong["unet.conv_in.bias"] = torch.zeros(3)
    save_bin(wrong, tmp_path / "TDM" / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(sources).unet(Component.TDM_UNET)
    message = str(caught.value)
    assert "missing: unet.conv_out.bias" in message
    assert "unexpected: unet.surplus.weight" in message
    assert "shape [3] instead of [8]: unet.conv_in.bias" in message
    assert str(tmp_path / "TDM" / "pytorch_model.bin") in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    sources: Sources, tmp_path: Path, tdm: Tensors, value: float
) -> None:
    wrong = tdm | {"unet.conv_in.bias": torch.full((8,), value)}
    save_bin(wrong, tmp_path / "TDM" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"not finite: unet\.conv_in\.bias"):
        Checkpoint.open(sources).unet(Component.TDM_UNET)


def test_names_of_no_component_are_listed(sources: Sources, tmp_path: Path, sdm: Tensors) -> None:
    save_bin(sdm | {"adapter.weight": torch.zeros(1)}, tmp_path / "SDM" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"unexpected: adapter\.weight"):
        Checkpoint.open(sources)


class Code:
    """Unpickled carelessly, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_refused_and_not_run(sources: Sources, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    save_bin({"unet.conv_in.weight": Code(trace)}, tmp_path / "TDM" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds code"):
        Checkpoint.open(sources)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("kept", [0, 5, 1000, -1000])
def test_a_truncated_file_is_refused(
    sources: Sources, tmp_path: Path, tdm: Tensors, kind: str, kept: int
) -> None:
    path = tmp_path / "cut" / f"pytorch_model.{kind}"
    save_bin(tdm, path)
    if kind == "safetensors":
        save_file(tdm, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated"):
        Checkpoint.open(changed(sources, tdm=path)).unet(Component.TDM_UNET)


def test_a_file_of_something_else_is_refused(sources: Sources, tmp_path: Path) -> None:
    save_bin([1, 2], tmp_path / "TDM" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected a dict of tensors"):
        Checkpoint.open(sources)


def test_a_source_that_is_nowhere_is_named_with_its_flag(sources: Sources) -> None:
    with pytest.raises(CheckpointError, match="--tdm"):
        Checkpoint.open(changed(sources, tdm=Path("/no/such/folder")))


def test_a_hub_id_is_read_from_the_hubs_cache_without_a_network(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(sources.base, repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    local, cached = (
        Checkpoint.open(dataclasses.replace(sources, base=base))
        for base in (sources.base, "someone/base")
    )
    assert cached.digest(Component.VAE_DECODER) == local.digest(Component.VAE_DECODER)
    with pytest.raises(CheckpointError, match="hf download someone/other"):
        Checkpoint.open(dataclasses.replace(sources, base="someone/other"))


def test_an_unknown_prediction_type_is_refused(sources: Sources) -> None:
    path = Path(sources.base) / "scheduler" / "scheduler_config.json"
    write_json(path, {"prediction_type": "v_prediction"})
    with pytest.raises(CheckpointError, match="epsilon"):
        Checkpoint.open(sources)


def test_a_missing_configuration_is_named(sources: Sources) -> None:
    (Path(sources.base) / "unet" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"unet/config\.json is missing"):
        Checkpoint.open(sources).unet(Component.TDM_UNET)


def test_stable_diffusion_1_5_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        modules: dict[nn.Module, int] = {
            unet_from(UNET_CONFIG): 859_520_964,
            text_encoder_from(TEXT_CONFIG): 123_060_480,
            image_encoder_from(VISION_CONFIG): 303_966_208,
            vae_from(VAE_CONFIG): 83_653_863,
            FusionMLP(768, 768): 2_958_336,
        }
    for module, expected in modules.items():
        assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_random_weights_depend_on_the_seed_alone() -> None:
    first = random_checkpoint(3).fusion_mlp().state_dict()
    torch.manual_seed(99)
    again = random_checkpoint(3).fusion_mlp().state_dict()
    other = RandomCheckpoint(4).fusion_mlp().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mlp1.fc1.weight"], other["mlp1.fc1.weight"])
    component = Component.TDM_UNET
    assert random_checkpoint(3).digest(component) != random_checkpoint(4).digest(component)


def test_the_shipped_model_is_complete_and_small() -> None:
    checkpoint = Checkpoint.open(SHIPPED_MODEL)
    checkpoint.text_encoder(), checkpoint.image_encoder(), checkpoint.fusion_mlp()
    checkpoint.vae_decoder()
    unets = [checkpoint.unet(Component.TDM_UNET), checkpoint.unet(Component.SDM_UNET)]
    for unet in unets:
        assert 1e6 < sum(parameter.numel() for parameter in unet.parameters()) < 4e6
    files = list(shipped.MODEL.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 20e6
    assert all(tensor.dtype == torch.float16 for tensor in load_file(files[0]).values())
    # Without this machine's folders: a bundle tells nobody where it was built.
    assert checkpoint.licenses()[0] == "mini/model/base: MIT, part of this repository"
    assert all("/" in name for name in checkpoint.source_digests())


def test_the_fusion_mlp_changes_marked_tokens_alone_by_its_formula() -> None:
    torch.manual_seed(0)
    mlp = FusionMLP(6, 4).requires_grad_(requires_grad=False)
    text, subjects = torch.randn(2, 5, 6), torch.randn(2, 5, 4)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 2] = mask[1, 4] = True
    augmented = mlp(text, subjects, mask)
    assert torch.equal(augmented[~mask], text[~mask])

    def plain(weights: Any, hidden: Tensor) -> Tensor:
        centered = hidden - hidden.mean()
        normed = centered / (centered.square().mean() + 1e-5).sqrt()
        first = weights.fc1.weight @ normed + weights.fc1.bias
        gelu = first * 0.5 * (1 + torch.erf(first / 2**0.5))
        result: Tensor = weights.fc2.weight @ gelu + weights.fc2.bias
        return result

    for image, token in ((0, 2), (1, 4)):
        word = text[image, token]
        mixed = plain(mlp.mlp1, torch.cat([word, subjects[image, token]])) + word
        mixed = plain(mlp.mlp2, mixed) + mixed
        mixed = mixed - mixed.mean()
        expected = mixed / (mixed.square().mean() + 1e-5).sqrt()
        # Six fp32 layers of width 10 at scale 1: a few units in the last place of 1.2e-7.
        torch.testing.assert_close(augmented[image, token], expected, atol=2e-6, rtol=0)


def renamed(tensors: Tensors, change: Callable[[str], str]) -> Tensors:
    return {change(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "module.module.", "_fsdp_wrapped_module."]
)
def test_what_wrappers_put_into_names_is_taken_off(
    prefix: str, sources: Sources, tmp_path: Path, tdm: Tensors
) -> None:
    within = prefix.removeprefix("module.").removeprefix("module.")
    for number, change in enumerate((prefix + "unet.", f"unet.{within}")):
        names = renamed(tdm, lambda name, new=change: name.replace("unet.", new, 1))  # type: ignore[misc]
        save_bin(names, tmp_path / str(number) / "pytorch_model.bin")
        checkpoint = Checkpoint.open(changed(sources, tdm=tmp_path / str(number)))
        assert_holds(checkpoint.unet(Component.TDM_UNET), tdm, "unet.")


def test_averages_beside_the_weights_are_left_aside(
    sources: Sources, tmp_path: Path, tdm: Tensors
) -> None:
    averages = {name.replace("unet.", "ema_unet.", 1): t * 2 for name, t in tdm.items()}
    save_bin(tdm | averages, tmp_path / "TDM" / "pytorch_model.bin")
    assert_holds(Checkpoint.open(sources).unet(Component.TDM_UNET), tdm, "unet.")


def test_nested_dictionaries_of_training_scripts_are_read(
    sources: Sources, tmp_path: Path, tdm: Tensors
) -> None:
    bare = renamed(tdm, lambda name: name.removeprefix("unet."))
    for number, content in enumerate(
        ({"state_dict": tdm, "epoch": 3}, {"model": {"unet": bare}}, {"unet": bare, "step": 7})
    ):
        path = tmp_path / str(number) / "pytorch_model.bin"
        path.parent.mkdir()
        torch.save(content, path)
        checkpoint = Checkpoint.open(changed(sources, tdm=path))
        assert_holds(checkpoint.unet(Component.TDM_UNET), tdm, "unet.")


@pytest.mark.parametrize(
    "name",
    [
        "model.fp16.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.fp16.bin",
        "pytorch_model.fp16.bin",
    ],
)
def test_a_lone_variant_is_read(name: str, sources: Sources, tmp_path: Path, tdm: Tensors) -> None:
    path = tmp_path / "variant" / name
    path.parent.mkdir()
    save_file(tdm, path) if name.endswith("safetensors") else torch.save(tdm, path)
    checkpoint = Checkpoint.open(changed(sources, tdm=path.parent))
    assert_holds(checkpoint.unet(Component.TDM_UNET), tdm, "unet.")


@pytest.mark.parametrize(
    ("change", "layout"),
    [
        (lambda name: name.replace("unet.", "model.diffusion_model.", 1), "single-file"),
        (lambda name: name.replace("unet.", "first_stage_model.", 1), "single-file"),
        (lambda name: name + ".lora_A.weight", "LoRA"),
        (lambda name: "lora_unet_" + name.replace(".", "_") + ".lora_down.weight", "LoRA"),
        (lambda name: name.replace("unet.", "double_blocks.", 1), "transformer"),
        (lambda name: "x." + "y" * 500 + name, "unexpected"),
    ],
)
def test_another_layout_is_named_in_a_message_that_fits_a_screen(
    change: Callable[[str], str], layout: str, sources: Sources, tmp_path: Path, tdm: Tensors
) -> None:
    many = {f"{name}.{n}": tensor for name, tensor in tdm.items() for n in range(3)}
    save_bin(renamed(many, change), tmp_path / "TDM" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=layout) as caught:
        Checkpoint.open(sources)
    assert len(str(caught.value)) < 2000


def test_pointers_and_dangling_links_are_called_what_they_are(
    sources: Sources, tmp_path: Path
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438167540\n"
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(pointer)
        with pytest.raises(CheckpointError, match="git lfs pull"):
            Checkpoint.open(changed(sources, tdm=tmp_path / name))
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "model.safetensors").symlink_to("/nonexistent/blob")
    with pytest.raises(CheckpointError, match="link to /nonexistent/blob"):
        Checkpoint.open(changed(sources, tdm=tmp_path / "gone"))


def reconfigured(sources: Sources, part: str, **fields: Any) -> None:
    path = Path(sources.base) / part
    config = json.loads(path.read_text()) | fields
    write_json(path, {name: value for name, value in config.items() if value is not ...})


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("scheduler/scheduler_config.json", "timestep_spacing", "trailing"),
        ("scheduler/scheduler_config.json", "rescale_betas_zero_snr", True),
        ("scheduler/scheduler_config.json", "thresholding", True),
        ("scheduler/scheduler_config.json", "clip_sample", True),
        ("scheduler/scheduler_config.json", "use_karras_sigmas", True),
        ("scheduler/scheduler_config.json", "trained_betas", [0.1]),
        ("scheduler/scheduler_config.json", "beta_start", [0.1]),
        ("scheduler/scheduler_config.json", "num_train_timesteps", -1),
        ("scheduler/scheduler_config.json", "beta_schedule", "squaredcos_cap_v2"),
        ("scheduler/scheduler_config.json", "skip_prk_steps", ...),
        ("vae/config.json", "shift_factor", 0.1),
        ("vae/config.json", "latents_mean", [0.0] * 4),
        ("vae/config.json", "use_post_quant_conv", False),
        ("unet/config.json", "class_embed_type", "timestep"),
        ("unet/config.json", "cross_attention_norm", "layer_norm"),
        ("unet/config.json", "center_input_sample", True),
        ("unet/config.json", "only_cross_attention", True),
        ("unet/config.json", "in_channels", 9),
        ("unet/config.json", "sample_size", [8, 8]),
        ("unet/config.json", "down_block_types", ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]),
        ("tokenizer/tokenizer_config.json", "pad_token", "!"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 40),
        ("text_encoder/config.json", "vocab_size", 600),
    ],
)
def test_a_field_that_is_not_followed_is_refused_by_name(
    part: str, name: str, value: object, sources: Sources
) -> None:
    reconfigured(sources, part, **{name: value})
    with pytest.raises(CheckpointError, match=name):
        Checkpoint.open(sources)


def test_fields_that_are_left_out_are_the_librarys_own(sources: Sources) -> None:
    reconfigured(
        sources, "scheduler/scheduler_config.json", beta_start=..., beta_end=...,
        beta_schedule=..., steps_offset=..., num_train_timesteps=...,
    )  # fmt: skip
    checkpoint = Checkpoint.open(sources)
    found = noise_schedule_of(checkpoint)
    expected = PNDMScheduler.from_config(checkpoint.scheduler_config())
    np.testing.assert_allclose(
        found.alphas_cumprod(), expected.alphas_cumprod.double().numpy(), rtol=1e-5
    )
    assert found.steps_offset == expected.config.steps_offset


@pytest.mark.parametrize("name", ["merges.txt", "vocab.json"])
def test_a_tokenizer_that_is_not_whole_is_refused(name: str, sources: Sources) -> None:
    folder = Path(sources.base) / "tokenizer"
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        Checkpoint.open(sources)
    (folder / name).write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError, match=name):
        Checkpoint.open(sources)


def test_modules_compute_what_the_librarys_own_do(sources: Sources) -> None:
    checkpoint, generator = Checkpoint.open(sources), torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    embeds = torch.randn(2, 77, WIDTH, generator=generator)
    timestep = torch.tensor([501.0])
    with torch.inference_mode():
        unet = checkpoint.unet(Component.TDM_UNET)
        expected = unet(latents.repeat(2, 1, 1, 1), timestep, embeds).sample
        found = module_of(Component.TDM_UNET, checkpoint)(
            latents=latents, timestep=timestep, prompt_embeds=embeds
        )
        # Float32 sums in another order: 1e-6 seen.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        vae: Any = checkpoint.vae_decoder()
        decoded = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
        found = module_of(Component.VAE_DECODER, checkpoint)(latents=latents)
        torch.testing.assert_close(found, decoded, rtol=1e-4, atol=1e-5)


def test_a_time_limit_of_the_callers_is_no_fault_of_the_checkpoint(sources: Sources) -> None:
    def late() -> nn.Module:
        raise TimeoutError("too long")

    weights, named = WeightFiles.open(Path(sources.sdm)), Path("config.json")
    with pytest.raises(TimeoutError):
        fitted(late, named, weights, "unet.")
    with pytest.raises(CheckpointError, match="no model that can be built"):
        fitted(partial(unet_from, {"block_out_channels": "x"}), named, weights, "unet.")
