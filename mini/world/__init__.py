"""A drawn world: people with an identity in scenes, with captions, photos, masks and the truth."""

from mini.world.body import POSES
from mini.world.caption import MARKER, caption, plain_caption
from mini.world.look import ATTRIBUTES, Look, random_look
from mini.world.picture import (
    SCENES,
    SIDE_PX,
    Picture,
    Setting,
    draw_picture,
    random_picture,
    random_setting,
)
from mini.world.portrait import draw_portrait
from mini.world.styles import STYLES

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
