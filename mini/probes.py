"""Two small networks that say what a picture shows: each person's attributes, and the setting.

They are trained on the world's truth and judge what the model draws (benchmarks.measures.quality).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from mini.world import ATTRIBUTES, POSES, SCENES, STYLES

PROBES_FILE = Path(__file__).resolve().parent / "probes.safetensors"
# What the setting's probe answers; weather counts for nothing where a scene has only one.
SETTING_CHOICES: dict[str, int] = {
    "scene": len(SCENES),
    "pose": len(POSES),
    "people": 2,
    "style": len(STYLES),
}
_ONE_PERSON_BOX = (16, 4, 112, 124)
_TWO_PEOPLE_BOXES = ((0, 26, 72, 116), (56, 26, 128, 116))
PERSON_SIZE = (64, 80)

Pixels = npt.NDArray[np.uint8]


def halving(before: int, width: int) -> list[nn.Module]:
    """A convolution that halves both sides, its norm and its activation."""
    return [
        nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.ReLU(),
    ]  # fmt: skip


class Probe(nn.Module):
    """A small convolutional network with one linear classifier per question."""

    def __init__(self, choices: dict[str, int], size: tuple[int, int]) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers = [each for pair in itertools.pairwise(widths) for each in halving(*pair)]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        flat = widths[-1] * (size[0] // 16) * (size[1] // 16)
        self.heads = nn.ModuleDict({name: nn.Linear(flat, n) for name, n in choices.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """[n, 3, h, w] in [-1, 1] -> per question [n, choices]."""
        features = self.features(pixels)
        return {name: head(features) for name, head in self.heads.items()}


def person_probe() -> Probe:
    """An untrained probe of a person's attributes."""
    return Probe({name: len(values) for name, values in ATTRIBUTES.items()}, PERSON_SIZE)


def setting_probe() -> Probe:
    """An untrained probe of scene, pose, number of people and style."""
    return Probe(SETTING_CHOICES, (64, 64))


def open_probes(path: Path = PROBES_FILE) -> tuple[Probe, Probe]:
    """The trained probes: of a person, and of the setting. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; train the probes with: python -m mini.train, "
            "then write them with: python -m mini.ship"
        )
    tensors = load_file(path)
    probes = {"person": person_probe(), "setting": setting_probe()}
    for name, probe in probes.items():
        own = {
            k.removeprefix(f"{name}."): v.float() for k, v in tensors.items() if k.startswith(name)
        }
        probe.load_state_dict(own)
        probe.eval().requires_grad_(requires_grad=False)
    return probes["person"], probes["setting"]


def person_views(picture: Pixels, people: int) -> list[Pixels]:
    """Where the people of a 128 px picture are, from left to right, each [80, 64, 3] uint8.

    The places are those the world puts people at, so that no truth about the picture is needed.
    """
    boxes = (_ONE_PERSON_BOX,) if people == 1 else _TWO_PEOPLE_BOXES
    image = Image.fromarray(picture)
    size = PERSON_SIZE
    return [np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box)) for box in boxes]


def setting_view(picture: Pixels) -> Pixels:
    """The whole picture at half its size, [64, 64, 3] uint8."""
    return np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))


@torch.no_grad()
def answers(probe: Probe, views: list[Pixels]) -> dict[str, npt.NDArray[np.int64]]:
    """Per question the likeliest choice of each view [n]."""
    logits = probe(as_input(np.stack(views)))
    return {name: each.argmax(dim=1).numpy() for name, each in logits.items()}


def as_input(views: Pixels) -> Tensor:
    """[n, h, w, 3] uint8 -> [n, 3, h, w] float32 in [-1, 1]."""
    return torch.tensor(views).permute(0, 3, 1, 2).float() / 127.5 - 1
