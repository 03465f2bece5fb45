"""The drawn world: determined by its seeds, split by identity, and telling the truth."""

from __future__ import annotations

import dataclasses
import random
import re

import numpy as np
import pytest

from mini.dataset import encoder_photo, render_shard
from mini.tokenizer import captions
from mini.world import (
    ATTRIBUTES,
    MARKER,
    POSES,
    SCENES,
    Look,
    Setting,
    caption,
    draw_picture,
    draw_portrait,
    plain_caption,
    random_look,
    random_picture,
    random_setting,
)

LOOK = Look(
    kind="man", skin="pale", hair_color="black", hair_style="short", eye_color="blue",
    glasses="none", beard="none", hat="none", clothes_color="red", pattern="plain",
)  # fmt: skip
SETTING = Setting(scene="library", weather="none", pose="standing", style="plain")


def test_a_seed_draws_the_same_picture_and_another_seed_another() -> None:
    first, again, other = (random_picture(seed, held_out=False) for seed in (5, 5, 6))
    assert np.array_equal(first.pixels, again.pixels) and first.looks == again.looks
    assert not np.array_equal(first.pixels, other.pixels)


def test_identities_of_evaluation_never_occur_in_training() -> None:
    rng = random.Random(0)
    training = [random_look(rng, held_out=False) for _ in range(400)]
    evaluation = [random_look(rng, held_out=True) for _ in range(400)]
    # Two draws of millions of looks hardly ever meet, so it is the split that is looked at.
    assert not any(look.held_out for look in training)
    assert all(look.held_out for look in evaluation)
    looks = [dataclasses.replace(look, **_others(rng)) for look in training * 10]
    # A tenth of 4000: its standard deviation is 19.
    assert 300 < sum(look.held_out for look in looks) < 500
    # Combinations of attributes, without the man, woman, boy or girl.
    assert np.prod([len(values) for values in list(ATTRIBUTES.values())[1:]]) > 10_000


def _others(rng: random.Random) -> dict[str, str]:
    """Attributes drawn anew, whichever side of the split they end on."""
    return {name: rng.choice(values) for name, values in ATTRIBUTES.items()}


@pytest.mark.parametrize("held_out", [False, True])
def test_everybody_in_a_picture_is_of_the_side_that_was_asked_for(held_out: bool) -> None:  # noqa: FBT001
    for seed in range(20):
        assert {look.held_out for look in random_picture(seed, held_out=held_out).looks} == {
            held_out
        }


def test_captions_never_say_what_people_look_like() -> None:
    told = {value for values in list(ATTRIBUTES.values())[1:] for value in values} - {"none"}
    # A star and a bun could be meant otherwise, but no caption has them either.
    words = {word for text in captions() for word in re.findall("[a-z]+", text)}
    assert not words & told
    assert {"man", "woman", "boy", "girl", "person", "beach", "moon"} <= words


@pytest.mark.parametrize("people", [1, 2])
def test_a_caption_marks_each_person_once_from_left_to_right(people: int) -> None:
    kinds = ("girl", "man")[:people]
    text = plain_caption(SETTING, kinds)
    assert text.count(MARKER) == people
    assert [word for word in text.split() if word in kinds] == list(kinds)
    rng = random.Random(3)
    assert all(caption(random_setting(rng), kinds, rng).count(MARKER) == people for _ in range(50))


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_differ_where_nobody_stands(scene: str) -> None:
    def drawn(name: str) -> np.ndarray:
        setting = Setting(scene=name, weather=SCENES[name][1][0], pose="standing", style="plain")
        return draw_picture(setting, (LOOK,), random.Random(1)).pixels[40:, :24].astype(float)

    others = [name for name in SCENES if name != scene]
    assert min(np.abs(drawn(scene) - drawn(other)).mean() for other in others) > 8


@pytest.mark.parametrize("pose", POSES)
def test_a_mask_covers_what_the_person_changes_and_its_box_surrounds_it(pose: str) -> None:
    setting = dataclasses.replace(SETTING, pose=pose)
    other = dataclasses.replace(LOOK, skin="dark", clothes_color="green", eye_color="amber")
    one, two = (draw_picture(setting, (look,), random.Random(2)) for look in (LOOK, other))
    changed = (one.pixels != two.pixels).any(axis=-1)
    # Half-covered edge pixels change too, so the mask is grown by one pixel.
    grown = one.masks[0].copy()
    for axis in (0, 1):
        grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    assert changed.sum() > 1000 and not (changed & ~grown).any()
    left, top, right, bottom = one.boxes[0]
    assert one.masks[0][top:bottom, left:right].sum() == one.masks[0].sum()
    x, y, _ = one.heads[0]
    assert one.masks[0][round(y), round(x)]


def test_two_people_stand_side_by_side_and_their_masks_are_disjoint() -> None:
    picture = draw_picture(SETTING, (LOOK, LOOK), random.Random(4))
    assert not (picture.masks[0] & picture.masks[1]).any()
    assert picture.heads[0][0] < 64 < picture.heads[1][0]


def test_each_attribute_shows_in_the_portrait() -> None:
    base = draw_portrait(LOOK, random.Random(7)).astype(float)
    for name, values in ATTRIBUTES.items():
        changed = dataclasses.replace(LOOK, **{name: values[-1]})
        difference = np.abs(draw_portrait(changed, random.Random(7)) - base).max(axis=-1)
        assert (difference > 30).sum() > 25, name


def test_a_portrait_differs_from_photo_to_photo() -> None:
    photos = [draw_portrait(LOOK, random.Random(seed)).astype(float) for seed in (1, 2)]
    assert np.abs(photos[0] - photos[1]).mean() > 8


def test_a_shard_keeps_the_truth_of_its_pictures() -> None:
    shard = render_shard(1, 3)
    picture = random_picture(4, held_out=False)
    assert np.array_equal(shard.pixels[1], picture.pixels)
    assert shard.setting(1) == picture.setting
    assert shard.kinds(1) == tuple(look.kind for look in picture.looks)
    assert shard.regions[1].mean() / 255 == pytest.approx(
        picture.masks.any(axis=0).mean(), abs=0.01
    )
    photo = draw_portrait(picture.looks[0], random.Random("photo 4 0 False"))
    assert np.array_equal(shard.photos[1, 0], encoder_photo(photo))


def test_what_is_not_of_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="skin must be one of"):
        dataclasses.replace(LOOK, skin="blue")
    with pytest.raises(ValueError, match="moon has the weathers"):
        dataclasses.replace(SETTING, scene="moon", weather="rainy")
    with pytest.raises(ValueError, match="one or two people, got 3"):
        draw_picture(SETTING, (LOOK, LOOK, LOOK), random.Random(0))
