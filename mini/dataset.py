"""The training set on disk: pictures of the world with their truth, in shards."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from engines.contract import LATENT_PX
from mini.world import (
    ATTRIBUTES,
    POSES,
    SCENES,
    STYLES,
    Setting,
    draw_portrait,
    random_picture,
)

MAX_PEOPLE = 2
SHARD_PICTURES = 2000
PHOTO_PX = 96
WEATHERS = ("none", "sunny", "rainy", "sunset", "snowy")


@dataclass(frozen=True, eq=False)
class Shard:
    """So many pictures and the photos of their people.

    pixels [n, 128, 128, 3] uint8; photos [n, people, 96, 96, 3] uint8; attributes [n, people,
    attributes] int8 with -1 where there is nobody; settings [n, 4] int8: scene, weather, pose,
    style; regions [n, 16, 16] uint8, how much of each latent cell is people, 255 all of it.
    """

    pixels: npt.NDArray[np.uint8]
    photos: npt.NDArray[np.uint8]
    attributes: npt.NDArray[np.int8]
    settings: npt.NDArray[np.int8]
    regions: npt.NDArray[np.uint8]

    def setting(self, index: int) -> Setting:
        """What the caption of one picture says."""
        scene, weather, pose, style = self.settings[index]
        return Setting(
            scene=tuple(SCENES)[scene],
            weather=WEATHERS[weather],
            pose=POSES[pose],
            style=STYLES[style],
        )

    def kinds(self, index: int) -> tuple[str, ...]:
        """Man, woman, boy or girl, from left to right."""
        return tuple(ATTRIBUTES["kind"][a[0]] for a in self.attributes[index] if a[0] >= 0)


def render_shard(number: int, size: int = SHARD_PICTURES, *, held_out: bool = False) -> Shard:
    """The pictures number * size and on; the same for the same arguments."""
    shard = Shard(
        np.zeros((size, 128, 128, 3), np.uint8),
        np.zeros((size, MAX_PEOPLE, PHOTO_PX, PHOTO_PX, 3), np.uint8),
        np.full((size, MAX_PEOPLE, len(ATTRIBUTES)), -1, np.int8),
        np.zeros((size, 4), np.int8),
        np.zeros((size, 128 // LATENT_PX, 128 // LATENT_PX), np.uint8),
    )
    for index in range(size):
        seed = number * size + index
        picture = random_picture(seed, held_out=held_out)
        shard.pixels[index] = picture.pixels
        setting = picture.setting
        shard.settings[index] = (
            tuple(SCENES).index(setting.scene),
            WEATHERS.index(setting.weather),
            POSES.index(setting.pose),
            STYLES.index(setting.style),
        )
        cells = picture.masks.any(axis=0).reshape(16, LATENT_PX, 16, LATENT_PX)
        shard.regions[index] = np.round(cells.mean(axis=(1, 3)) * 255)
        for place, look in enumerate(picture.looks):
            rng = random.Random(f"photo {seed} {place} {held_out}")
            shard.photos[index, place] = encoder_photo(draw_portrait(look, rng))
            shard.attributes[index, place] = list(look.labels().values())
    return shard


def encoder_photo(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A photo at the image encoder's size, [96, 96, 3] uint8."""
    image = Image.fromarray(photo)
    return np.asarray(image.resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BILINEAR))


def render(folder: Path, shards: int) -> None:
    """Draws the shards that are not there yet, then joins them to one file per field."""
    if _field(folder, "pixels").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"shard-{number:03}.npz" for number in range(shards)]
    for number, path in enumerate(tqdm(paths, desc="drawing the world", unit="shard")):
        if not path.is_file():
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, **vars(render_shard(number)))
            partial.rename(path)
    # Pixels last: their file says that all is there.
    for name in reversed([field.name for field in fields(Shard)]):
        _join(paths, name, _field(folder, name))
    for path in paths:
        path.unlink()


def load(folder: Path) -> Shard:
    """The whole set, mapped from its files and read as it is used."""
    if not _field(folder, "pixels").is_file():
        raise FileNotFoundError(f"no pictures in {folder}; draw them with: train.py --stage world")
    names = [field.name for field in fields(Shard)]
    return Shard(**{name: np.load(_field(folder, name), mmap_mode="r") for name in names})


def _join(paths: list[Path], name: str, target: Path) -> None:
    with np.load(paths[0]) as first:
        part = first[name]
    shape = (len(part) * len(paths), *part.shape[1:])
    partial = target.with_suffix(".partial")
    whole = np.lib.format.open_memmap(partial, mode="w+", dtype=part.dtype, shape=shape)
    for number, path in enumerate(paths):
        with np.load(path) as arrays:
            whole[number * len(part) : (number + 1) * len(part)] = arrays[name]
    whole.flush()
    partial.rename(target)


def _field(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
