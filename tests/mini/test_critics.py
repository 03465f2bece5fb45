"""The critics that ship: small, right about people they never saw, and alive to what they judge."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import nn

from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from mini.critics import (
    PERCEPTION_FILE,
    VERIFIER_FILE,
    Perception,
    Values,
    Verifier,
    critics_record,
    embeddings,
    open_perception,
    open_verifier,
    perceptual_distances,
    photo_view,
    summaries,
)
from mini.dataset import Shard, render_shard
from mini.probes import Pixels, as_input
from mini.train_critics import equal_error, impostors, rate_and_threshold, similarities
from mini.training.critics import perception_loss, verifier_loss
from mini.training.loop import Plan
from mini.training.probes import through_vae
from mini.world import draw_portrait, random_look

_PLAN = Plan(name="critic", steps=1, batch=6, learning_rate=1e-3)


@pytest.fixture(scope="module")
def people() -> Shard:
    """Other held-out people than those whose errors stand in the record."""
    return render_shard(50, 24, held_out=True)


def test_the_weights_are_small() -> None:
    assert all(path.stat().st_size < 600_000 for path in (PERCEPTION_FILE, VERIFIER_FILE))


def test_the_verifier_errs_on_few_people_it_never_saw(people: Shard) -> None:
    record = critics_record()
    told = record.through_vae
    assert told.rate <= 0.05 and told.rate_95[0] <= told.rate <= told.rate_95[1]
    assert told.people > 300 and told.pairs > 10_000
    decoded = through_vae(Checkpoint.open(SHIPPED_MODEL).vae_decoder(), people.pixels)
    found = similarities(open_verifier(), people, decoded)
    others = impostors(people, one_kind=True)
    refused = (np.diag(found) < told.threshold).mean()
    accepted = (found[others] >= told.threshold).mean()
    # 24 pictures show some 36 people: three of them are 8 %.
    assert refused <= 0.12 and accepted <= 0.12


def test_impostors_look_different_and_may_have_to_be_of_one_kind(people: Shard) -> None:
    of_any, of_kind = impostors(people, one_kind=False), impostors(people, one_kind=True)
    assert not np.diag(of_any).any() and (of_any >= of_kind).all()
    labels = people.attributes[people.attributes[..., 0] >= 0]
    rows, columns = np.nonzero(of_kind)
    assert (labels[rows, 0] == labels[columns, 0]).all()
    assert of_any.sum() > 2 * of_kind.sum() > 0


def test_an_equal_error_is_where_as_many_are_refused_as_accepted() -> None:
    scores: Values = np.full((10, 10), 0.1)
    np.fill_diagonal(scores, 0.9)
    others = ~np.eye(10, dtype=bool)
    rate, threshold = rate_and_threshold(scores, others)
    assert rate == 0.0 and 0.1 < threshold <= 0.9
    scores[0, 0] = 0.0  # one in ten people is not like their photo
    scores[others] = np.where(np.arange(90) < 9, 0.95, 0.1)  # one in ten pairs is
    rate, threshold = rate_and_threshold(scores, others)
    assert rate == pytest.approx(0.1) and 0.1 < threshold <= 0.9
    found = equal_error(scores, others)
    assert found.rate == pytest.approx(0.1) and found.rate_95[0] < 0.1 < found.rate_95[1]


def test_another_hat_makes_a_person_less_alike() -> None:
    verifier, chance = open_verifier(), random.Random("critics")
    fewer = []
    for seed in range(12):
        look = random_look(chance, held_out=True)
        other = replace(look, hat="straw" if look.hat != "straw" else "beanie")
        photos = [
            draw_portrait(each, random.Random(seed + light))
            for light, each in ((0, look), (100, look), (100, other))
        ]
        own, again, hatted = embeddings(verifier, [photo_view(each) for each in photos])
        fewer.append(own @ again - own @ hatted)
    assert np.mean(fewer) > 0.05


def _blurred(pixels: Pixels, radius: float) -> Pixels:
    blur = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(each).filter(blur)) for each in pixels])


def test_pictures_look_further_apart_the_more_they_are_blurred(people: Shard) -> None:
    network, pixels = open_perception(), people.pixels[:6]
    same, little, more = (
        perceptual_distances(network, _blurred(pixels, radius), pixels) for radius in (0, 0.6, 2)
    )
    assert (same == 0).all() and (little > 0).all() and (more > little).all()
    # Each picture by itself, whatever stands beside it.
    alone = perceptual_distances(network, _blurred(pixels[:1], 2), pixels[:1])
    assert alone == pytest.approx(more[:1], rel=1e-4)


def test_a_perceptual_distance_is_that_of_features_of_unit_length() -> None:
    random = np.random.RandomState(0)
    first, second = random.randint(0, 256, (2, 2, 128, 128, 3)).astype(np.uint8)
    network = open_perception()
    with torch.no_grad():
        ours, theirs = (network.seen(as_input(each)) for each in (first, second))
    layers = []
    for pair in zip(ours, theirs, strict=True):
        a, b = (each.double().numpy() for each in pair)
        a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
        layers.append(np.square(a - b).sum(axis=1).mean(axis=(1, 2)))
    found = perceptual_distances(network, first, second)
    # float32 features of some hundred sums each.
    np.testing.assert_allclose(found, np.mean(layers, axis=0), rtol=1e-4)


def test_pictures_of_one_scene_are_summarized_alike(people: Shard) -> None:
    found = summaries(open_perception(), people.pixels)
    scenes = people.settings[:, 0]
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1)
    same = (scenes[:, None] == scenes[None]) & ~np.eye(len(scenes), dtype=bool)
    assert apart[same].mean() < apart[scenes[:, None] != scenes[None]].mean()


def test_the_losses_fall_and_every_weight_is_trained() -> None:
    shard = render_shard(0, 6)
    torch.manual_seed(0)
    perception, verifier = Perception(), Verifier()
    losses: list[tuple[nn.Module, Callable[..., Any]]] = [
        (perception, partial(perception_loss, perception)),
        (verifier, partial(verifier_loss, verifier)),
    ]
    for model, loss in losses:
        values = []
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(5):
            value, _ = loss(shard, shard.pixels[:4], _PLAN, 0)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(float(value.detach()))
        assert values[-1] < values[0]
        assert all(each.grad is not None for each in model.parameters())


def test_missing_weights_say_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m mini\.train_critics"):
        open_verifier(tmp_path / "verifier.safetensors")
