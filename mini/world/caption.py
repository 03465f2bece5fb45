"""Captions in plain words: who, what, where; never what the people look like."""

from __future__ import annotations

import random

from mini.world.picture import Setting

MARKER = "<|image|>"

_STYLES = {
    "plain": ("", "", "a picture of "),
    "comic": ("a comic of ",),
    "watercolor": ("a watercolor of ",),
}
_POSES = {
    "standing": ("standing",),
    "waving": ("waving",),
    "cheering": ("cheering",),
    "reading": ("reading", "reading a book"),
    "holding a balloon": ("holding a balloon",),
}
_PLACES = {
    "beach": ("on a beach", "on the beach"),
    "forest": ("in a forest", "in the forest"),
    "park": ("in a park", "in the park"),
    "snow": ("in the snow", "in the mountains"),
    "desert": ("in a desert", "in the desert"),
    "city": ("in a city at night", "in the city at night"),
    "moon": ("on the moon",),
    "kitchen": ("in a kitchen", "in the kitchen"),
    "stage": ("on a stage", "on the stage"),
    "library": ("in a library", "in the library"),
}
_WEATHERS = {
    "none": ("",),
    "sunny": (" on a sunny day", ", sunny"),
    "rainy": (" in the rain", ", rainy"),
    "sunset": (" at sunset", ", sunset"),
    "snowy": (" while it snows", ", snowing"),
}
_PERSON_SHARE, _POSE_LEFT_OUT_SHARE, _WEATHER_LEFT_OUT_SHARE = 0.15, 0.1, 0.15


def caption(setting: Setting, kinds: tuple[str, ...], rng: random.Random) -> str:
    """One way to say it, a marker after the word for each person, from left to right.

    kinds: man, woman, boy or girl; some captions say person, or leave out pose or weather.
    """
    words = ["person" if rng.random() < _PERSON_SHARE else kind for kind in kinds]
    pose = rng.choice(_POSES[setting.pose]) + " "
    if rng.random() < _POSE_LEFT_OUT_SHARE:
        pose = ""
    weather = rng.choice(_WEATHERS[setting.weather])
    if rng.random() < _WEATHER_LEFT_OUT_SHARE:
        weather = ""
    return (
        rng.choice(_STYLES[setting.style])
        + " and ".join(f"a {word} {MARKER}" for word in words)
        + f" {pose}{rng.choice(_PLACES[setting.scene])}{weather}"
    )


def plain_caption(setting: Setting, kinds: tuple[str, ...]) -> str:
    """The caption that says everything in the first way of saying it."""
    return (
        _STYLES[setting.style][0]
        + " and ".join(f"a {kind} {MARKER}" for kind in kinds)
        + f" {_POSES[setting.pose][0]} {_PLACES[setting.scene][0]}{_WEATHERS[setting.weather][0]}"
    )
