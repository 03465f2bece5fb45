"""The training of the shipped model: resumable, learning, and training what the paper trains."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import Tensor, nn

from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from export.shipped import MODEL
from mini import architecture
from mini.dataset import Shard, render_shard
from mini.models import new_decoder, new_sdm, new_tdm, new_vae, trained_vae
from mini.probes import answers, open_probes, person_views, setting_view
from mini.ship import HER, HIM, ship_fastcomposer
from mini.tokenizer import make_tokenizer
from mini.training import decoder, diffusion, fastcomposer
from mini.training.decoder import Sharpened, decoder_loss
from mini.training.diffusion import (
    Latents,
    SubjectAugmented,
    TextDriven,
    sdm_loss,
    tdm_loss,
)
from mini.training.fastcomposer import (
    cross_attention,
    fastcomposer_loss,
    localization,
    own_regions,
)
from mini.training.loop import Plan, learning_rate, step_generator, trained
from mini.training.vae import encoded, vae_loss
from mini.world import ATTRIBUTES, random_picture
from runtime.inputs.prompt import Tokenizer

pytestmark = pytest.mark.slow  # every stage takes some steps of training

_TINY_UNET = architecture.UNET | {
    "block_out_channels": [8, 16, 16],
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
_TINY_TEXT = architecture.TEXT | {"hidden_size": 16, "intermediate_size": 32}
_TINY_VISION = architecture.VISION | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "patch_size": 48,
    "projection_dim": 16,
}
_TINY_VAE = architecture.VAE | {"block_out_channels": [8, 8, 8, 8]}


@pytest.fixture(scope="module")
def shard() -> Shard:
    return render_shard(0, 8)


@pytest.fixture(scope="module")
def data(shard: Shard, tmp_path_factory: pytest.TempPathFactory) -> Latents:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    tokenizer = Tokenizer.open(folder / "tokenizer.json", 77)
    return Latents(latents, shard, tokenizer, torch.linspace(0.999, 0.005, 1000))


def _text_encoder() -> Any:
    ends = {"vocab_size": 700, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return text_encoder_from(_TINY_TEXT | ends)


def _sdm() -> SubjectAugmented:
    torch.manual_seed(0)
    unet = unet_from(_TINY_UNET)
    unet.set_attn_processor(AttnProcessor())  # as models.py trains it
    return SubjectAugmented(unet, image_encoder_from(_TINY_VISION), FusionMLP(16, 16))


class _Killed(Exception):
    pass


def test_a_killed_run_resumed_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = Plan(
        name="line",
        steps=8,
        batch=4,
        learning_rate=0.1,
        warmup_steps=2,
        save_seconds=0,
        curve_steps=1,
    )

    def run(folder: Path, killed_at: int | None = None) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == killed_at:
                raise _Killed
            inputs = torch.from_numpy(step_generator("line", step).standard_normal((4, 3))).float()
            return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean(), {}

        return trained(model, loss, plan, folder)

    whole = run(tmp_path / "whole").state_dict()
    with pytest.raises(_Killed):
        run(tmp_path / "killed", killed_at=5)
    resumed = run(tmp_path / "killed").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    curves = [(tmp_path / name / "line.json").read_text("utf-8") for name in ("whole", "killed")]
    assert curves[0].split("curve")[1] == curves[1].split("curve")[1]


def test_the_learning_rate_warms_up_and_falls_to_a_twentieth() -> None:
    plan = Plan(name="x", steps=100, batch=1, learning_rate=2.0, warmup_steps=10)
    rates = [learning_rate(plan, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[9] == rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, rel=0.02)


def losses(model: nn.Module, loss: Any, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=6e-3)
    values = []
    for step in range(steps):
        value, _ = loss(step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    return values


def test_the_text_driven_model_learns(data: Latents) -> None:
    torch.manual_seed(0)
    model = TextDriven(_text_encoder(), unet_from(_TINY_UNET))
    plan = Plan(name="tdm", steps=30, batch=8, learning_rate=0)
    values = losses(model, lambda step: tdm_loss(model, data, plan, step), 30)
    assert np.mean(values[-10:]) < 0.85 * np.mean(values[:5])


def test_the_subject_model_learns_and_leaves_what_the_paper_freezes(data: Latents) -> None:
    model, text_encoder = _sdm(), _text_encoder()
    before, text_before = (
        copy.deepcopy(model.state_dict()),
        copy.deepcopy(text_encoder.state_dict()),
    )
    plan = Plan(name="sdm", steps=30, batch=8, learning_rate=0)
    values = losses(model, lambda step: sdm_loss(model, text_encoder, data, plan, step), 30)
    assert np.mean(values[-10:]) < 0.85 * np.mean(values[:5])
    changed = {
        name for name, old in before.items() if not torch.equal(old, model.state_dict()[name])
    }
    vision = {name.removeprefix("image_encoder.") for name in changed if "image_encoder" in name}
    # Of four layers the last two.
    assert {name.split(".")[3] for name in vision if "layers" in name} == {"2", "3"}
    assert not any("embed" in name for name in vision)
    assert any(name.startswith("fusion_mlp") for name in changed)
    after = text_encoder.state_dict()
    assert all(torch.equal(old, after[name]) for name, old in text_before.items())


def test_the_photo_of_each_person_reaches_the_loss(data: Latents) -> None:
    model, text_encoder = _sdm(), _text_encoder()
    plan = Plan(name="sdm", steps=1, batch=8, learning_rate=0)
    first, _ = sdm_loss(model, text_encoder, data, plan, 0)
    other = Shard(**(vars(data.shard) | {"photos": data.shard.photos[::-1]}))
    swapped = Latents(data.latents, other, data.tokenizer, data.alphas_cumprod)
    second, _ = sdm_loss(model, text_encoder, swapped, plan, 0)
    assert first.item() != second.item()


def test_fastcomposer_learns_where_people_are(
    data: Latents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where localization counts, attention to a person's word moves into the person."""
    plan = Plan(name="fastcomposer", steps=12, batch=8, learning_rate=0)
    text_encoder = _text_encoder()
    last: list[float] = []
    for weight in (0.0, 1e4):
        monkeypatch.setattr(fastcomposer, "LOCALIZATION_WEIGHT", weight)
        model = _sdm()
        outside: list[float] = []

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            value, shown = fastcomposer_loss(model, text_encoder, data, plan, step)  # noqa: B023
            outside.append(shown["outside"])  # noqa: B023
            return value, shown

        losses(model, loss, 12)
        last.append(float(np.mean(outside[-4:])))
    assert last[1] < last[0] - 1e-3


def test_fastcomposer_differs_from_sdm_by_its_localization(
    data: Latents, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, text_encoder = _sdm(), _text_encoder()
    plan = Plan(name="fastcomposer", steps=1, batch=8, learning_rate=0)
    monkeypatch.setattr(diffusion, "SDM_NULL_SHARE", diffusion.NULL_SHARE)
    monkeypatch.setattr(fastcomposer, "LOCALIZATION_WEIGHT", 1)
    with torch.no_grad():
        subject, plain = sdm_loss(model, text_encoder, data, plan, 0)
        whole, shown = fastcomposer_loss(model, text_encoder, data, plan, 0)
    assert shown["plain"] == plain["plain"] and shown["outside"] != 0
    # Of losses of about 1 in float32.
    assert whole.item() - subject.item() == pytest.approx(shown["outside"], abs=1e-6)


def test_attention_is_kept_while_it_is_asked_for_and_no_longer() -> None:
    unet = unet_from(_TINY_UNET)
    unet.set_attn_processor(AttnProcessor())
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([5, 5]), torch.randn(2, 77, 16))
    with torch.no_grad(), cross_attention(unet) as maps:
        first = unet(*inputs).sample
        again, kept = unet(*inputs).sample, len(maps)
    assert torch.equal(first, again) and kept == len(maps) > 0 and kept % 2 == 0
    for each in maps:
        assert each.shape[-1] == 77
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:2]))
    with torch.no_grad():
        unet(*inputs)
    assert len(maps) == kept


def test_two_people_have_a_half_of_the_picture_each() -> None:
    regions = torch.ones(3, 4, 4)
    own = own_regions(regions, torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]))
    assert own[0].sum() == 16
    assert own[1][:, :2].all() and own[1].sum() == 8
    assert own[2][:, 2:].all() and own[2].sum() == 8


def test_attention_inside_of_a_person_is_what_localization_asks_for() -> None:
    region = torch.zeros(1, 8, 8)
    region[:, :, :4] = 1
    inside, outside = region[:, ::2, ::2].clone(), 1 - region  # of two layers
    assert localization([inside], region).item() == pytest.approx(-1)
    assert localization([outside], region).item() == pytest.approx(1)
    assert localization([inside, outside], region).item() == pytest.approx(0)


def test_the_shares_of_two_processes_make_one_batch(
    data: Latents, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    tdm, sdm = TextDriven(_text_encoder(), unet_from(_TINY_UNET)), _sdm()
    plan = Plan(name="tdm", steps=1, batch=8, learning_rate=0)

    def of_share(share: slice) -> list[float]:
        monkeypatch.setattr(diffusion, "own_share", lambda batch: share)
        with torch.no_grad():
            text, _ = tdm_loss(tdm, data, plan, 0)
            people, _ = sdm_loss(sdm, tdm.text_encoder, data, plan, 0)
        return [text.item(), people.item()]

    whole, first, second = (of_share(slice(*ends)) for ends in ((0, 8), (0, 8, 2), (1, 8, 2)))
    # Eight bits of mantissa in the products.
    assert np.add(first, second) / 2 == pytest.approx(np.array(whole), rel=2e-2)
    assert first != second


def test_the_vae_learns_and_encodes_to_latents_an_eighth_as_large(shard: Shard) -> None:
    torch.manual_seed(0)
    vae = vae_from(_TINY_VAE)
    plan = Plan(name="vae", steps=30, batch=4, learning_rate=0)
    values = losses(vae, lambda step: vae_loss(vae, shard, plan, step, 32), 30)
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])
    assert encoded(vae, shard.pixels[:2]).shape == (2, 4, 16, 16)


def _decoder() -> Sharpened:
    torch.manual_seed(0)
    return Sharpened(vae_from(_TINY_VAE)).requires_grad_(requires_grad=True)


def _gradients(shard: Shard, step: int = 1000) -> tuple[dict[str, Tensor], Tensor]:
    """Of the decoder's and the judge's weights, and the loss."""
    model, plan = _decoder(), Plan(name="decoder", steps=30, batch=4, learning_rate=0)
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    loss, _ = decoder_loss(model, latents, shard, plan, step, 32)
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return found, loss.detach()


def test_the_decoder_learns_from_latents_that_stay_as_they_are(shard: Shard) -> None:
    model, plan = _decoder(), Plan(name="decoder", steps=30, batch=4, learning_rate=0)
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    values = losses(model, lambda step: decoder_loss(model, latents, shard, plan, step, 32), 30)
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])
    assert not any("encoder" in name.replace("decoder", "") for name, _ in model.named_parameters())


def test_neither_network_gets_gradients_from_the_others_loss(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, loss = _gradients(shard)
    early, _ = _gradients(shard, step=0)  # the judge knows nothing yet, and does not count
    for name in ("_ADVERSARIAL_WEIGHT", "_FEATURES_WEIGHT"):
        monkeypatch.setattr(decoder, name, 0.0)
    plain, without = _gradients(shard)
    plain_early, _ = _gradients(shard, step=0)
    monkeypatch.setattr(decoder, "distance", lambda drawn, _: 0 * drawn.sum())
    judging, _ = _gradients(shard)
    assert loss != without
    for name, gradient in both.items():
        of_judge = name.startswith("judge.")
        assert torch.equal(gradient, plain[name]) == of_judge, name
        assert torch.equal(early[name], plain_early[name]), name
        assert of_judge or not judging[name].any(), name


def _stored(folder: Path, name: str, module: nn.Module, value: float) -> None:
    """A stage's last checkpoint, whose averaged weights are all of one value."""
    averaged = {
        key: torch.full_like(each, value) if each.is_floating_point() else each
        for key, each in module.state_dict().items()
    }
    torch.save({"averaged": averaged}, folder / f"{name}.pt")


def _values(module: nn.Module) -> set[float]:
    return {float(each) for weight in module.parameters() for each in np.unique(weight.numpy())}


def test_the_shipped_vae_has_the_first_trainings_encoder_and_the_seconds_decoder(
    tmp_path: Path,
) -> None:
    vae = new_vae()
    _stored(tmp_path, "vae", vae, 1.0)
    _stored(tmp_path, "decoder", new_decoder(vae), 2.0)
    found = trained_vae(tmp_path)
    assert _values(found.encoder) == _values(found.quant_conv) == {1.0}
    assert _values(found.decoder) == _values(found.post_quant_conv) == {2.0}


def test_fastcomposers_checkpoint_has_the_names_of_sdms(tmp_path: Path) -> None:
    _stored(tmp_path, "tdm", new_tdm(tmp_path), 1.0)
    _stored(tmp_path, "fastcomposer", new_sdm(), 2.0)
    ship_fastcomposer(tmp_path, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    shipped = load_file(MODEL / "SDM" / "model.safetensors")
    assert {name: each.shape for name, each in found.items()} == {
        name: each.shape for name, each in shipped.items()
    }
    for name, tensor in found.items():
        if "position_ids" not in name:
            assert np.unique(tensor.numpy()).tolist() == [
                1.0 if name.startswith("text_") else 2.0
            ], name


def test_sharpness_is_the_energy_of_edges(shard: Shard) -> None:
    real = torch.from_numpy(shard.pixels.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    blurred = torch.nn.functional.avg_pool2d(real, 3, stride=1, padding=1, count_include_pad=False)
    assert decoder.sharpness(real, real) == 1
    assert decoder.sharpness(real / 2 + 0.3, real) == pytest.approx(0.25)
    assert decoder.sharpness(blurred, real) < 0.1


def test_latents_and_pixels_of_a_crop_are_of_one_place(shard: Shard) -> None:
    places = torch.arange(16.0).view(1, 1, 16, 1) * 16 + torch.arange(16.0)
    latents = torch.arange(8.0).view(8, 1, 1, 1) * 1000 + places
    painted = latents[:, 0].repeat_interleave(8, 1).repeat_interleave(8, 2)
    rgb = [painted // 1000, painted % 1000 // 16, painted % 1000 % 16]
    pixels = np.stack(rgb, -1).astype(np.uint8)
    marked = dataclasses.replace(shard, pixels=pixels)
    cells, seen = decoder._crops(latents, marked, 16, 64, np.random.RandomState(0))
    back = torch.round((seen + 1) * 127.5)[:, :, ::8, ::8]
    assert torch.equal(back[:, 0] * 1000 + back[:, 1] * 16 + back[:, 2], cells[:, 0])
    rows = back[:, 1, 0, 0]
    assert rows[1::2].max() <= 4 < rows[::2].max() <= 8  # every second one starts further up


def test_the_references_are_of_identities_that_training_never_saw() -> None:
    assert HIM.held_out and HER.held_out


def test_the_probes_know_the_world() -> None:
    person, setting = open_probes()
    pictures = [random_picture(seed, held_out=True) for seed in range(24)]
    views = [v for p in pictures for v in person_views(p.pixels, len(p.looks))]
    truth = [look.labels() for picture in pictures for look in picture.looks]
    told = answers(person, views)
    right = [told[name][i] == labels[name] for i, labels in enumerate(truth) for name in ATTRIBUTES]
    assert np.mean(right) > 0.9
    told = answers(setting, [setting_view(picture.pixels) for picture in pictures])
    assert np.mean(told["people"] + 1 == [len(picture.looks) for picture in pictures]) > 0.9
