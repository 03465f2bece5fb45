"""A drawn world: people with an identity in scenes, with captions, photos, masks and the truth."""

from examples.mini.world.body import POSES
from examples.mini.world.caption import MARKER, caption, plain_caption
from examples.mini.world.look import ATTRIBUTES, Look, random_look
from examples.mini.world.picture import (
    SCENES,
    SIDE_PX,
    Picture,
    Setting,
    draw_picture,
    random_picture,
    random_setting,
)
from examples.mini.world.portrait import draw_portrait
from examples.mini.world.styles import STYLES

__all__ = [
    "ATTRIBUTES",
    "MARKER",
    "POSES",
    "SCENES",
    "SIDE_PX",
    "STYLES",
    "Look",
    "Picture",
    "Setting",
    "caption",
    "draw_picture",
    "draw_portrait",
    "plain_caption",
    "random_look",
    "random_picture",
    "random_setting",
]
