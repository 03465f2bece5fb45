"""Trains the two critics on the drawn world, through the shipped autoencoder, and ships them.

    python -m mini.train_critics [--folder FOLDER] [--minutes M]

Goes on from its checkpoints in the folder. What the verifier gets wrong on people whom training
never saw is measured at the end and written beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from engines.bundle.files import atomic_path
from engines.cli.parser import command_parser
from engines.system.processor import processor_name
from export.checkpoint.checkpoint import SHIPPED_MODEL, Checkpoint
from mini.critics import (
    PERCEPTION_FILE,
    RECORD_FILE,
    VERIFIER_FILE,
    CriticsRecord,
    EqualError,
    Perception,
    Values,
    Verifier,
    embeddings,
    photo_view,
)
from mini.dataset import Shard, load, render, render_shard
from mini.probes import Pixels, person_views
from mini.training.critics import perception_loss, verifier_loss
from mini.training.loop import Plan, latest_average, trained
from mini.training.probes import through_vae
from mini.world import ATTRIBUTES

SHARDS = 2
# Of the shards' pictures, through the autoencoder, which takes longer than to draw them.
DECODED_PICTURES = 1600
HELD_OUT_PICTURES = 300
PERCEPTION = Plan(
    name="perception", steps=400, batch=32, learning_rate=2e-3, warmup_steps=50, ema_decay=0.99
)
VERIFIER = Plan(
    name="verifier", steps=500, batch=64, learning_rate=2e-3, warmup_steps=50, ema_decay=0.99
)
_PLANS = (PERCEPTION, VERIFIER)
_RESAMPLES = 500


def train(folder: Path, seconds: float) -> None:
    """Both critics, on from their checkpoints."""
    render(folder / "world", SHARDS)
    shard = load(folder / "world")
    drawn = _kept(folder / "drawn.npy", lambda: _decoded(shard.pixels[:DECODED_PICTURES]))
    torch.manual_seed(7)
    perception, verifier = Perception(), Verifier()
    seen = partial(perception_loss, perception, shard, drawn, PERCEPTION)
    trained(perception, seen, PERCEPTION, folder, seconds=seconds)
    judged = partial(verifier_loss, verifier, shard, drawn, VERIFIER)
    trained(verifier, judged, VERIFIER, folder, seconds=seconds)


def ship(folder: Path) -> CriticsRecord:
    """The averaged weights in half precision, and what was measured of them."""
    perception = latest_average(Perception(), folder, PERCEPTION.name)
    verifier = latest_average(Verifier(), folder, VERIFIER.name)
    for path, network in ((PERCEPTION_FILE, perception), (VERIFIER_FILE, verifier)):
        halves = {name: each.half().contiguous() for name, each in network.state_dict().items()}
        save_file(halves, path, metadata={"format": "pt"})
        path.chmod(0o644)
        network.load_state_dict({name: each.float() for name, each in halves.items()})
    people = held_out(folder)
    decoded = _kept(folder / "held_out_drawn.npy", lambda: _decoded(people.pixels))
    through = similarities(verifier, people, decoded)
    own = similarities(verifier, people, people.pixels)
    of_kind, of_any = impostors(people, one_kind=True), impostors(people, one_kind=False)
    states = [json.loads((folder / f"{plan.name}.json").read_text("utf-8")) for plan in _PLANS]
    record = CriticsRecord(
        machine=processor_name() or "unknown",
        seconds={plan.name: each["seconds"] for plan, each in zip(_PLANS, states, strict=True)},
        steps={
            plan.name: each["curve"][-1]["step"] for plan, each in zip(_PLANS, states, strict=True)
        },
        pictures=len(load(folder / "world").pixels),
        through_vae=equal_error(through, of_kind),
        world=equal_error(own, of_kind),
        any_kind=equal_error(through, of_any),
    )
    RECORD_FILE.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    return record


def held_out(folder: Path) -> Shard:
    """Pictures of people whom training never saw, drawn once."""
    path = folder / "held_out.npz"
    if not path.is_file():
        people = render_shard(0, HELD_OUT_PICTURES, held_out=True)
        with atomic_path(path) as partial_path, partial_path.open("wb") as file:
            np.savez(file, **vars(people))
    with np.load(path) as arrays:
        return Shard(**arrays)


def similarities(verifier: Verifier, people: Shard, pixels: Pixels) -> Values:
    """How like the person in row's photo the person in column's picture is [people, people]."""
    photos, views = [], []
    for index, picture in enumerate(pixels):
        seen = person_views(picture, len(people.kinds(index)))
        views += seen
        photos += [photo_view(people.photos[index, place]) for place in range(len(seen))]
    found: Values = embeddings(verifier, photos) @ embeddings(verifier, views).T
    return found


def impostors(people: Shard, *, one_kind: bool) -> npt.NDArray[np.bool_]:
    """Which pairs are of two people who look different [people, people]; one_kind: and are both
    men, women, boys or girls."""
    labels = people.attributes[people.attributes[..., 0] >= 0]
    different = (labels[:, None] != labels[None]).any(axis=-1)
    kind = tuple(ATTRIBUTES).index("kind")
    alike = labels[:, None, kind] == labels[None, :, kind]
    found: npt.NDArray[np.bool_] = different & alike if one_kind else different
    return found


def equal_error(scores: Values, others: npt.NDArray[np.bool_]) -> EqualError:
    """scores [people, people]: own ones on the diagonal, those of `others` are impostors'."""
    rate, threshold = rate_and_threshold(scores, others)
    chance, count = np.random.RandomState(0), len(scores)
    resampled = []
    for _ in range(_RESAMPLES):
        index = chance.randint(0, count, count)
        rows = np.ix_(index, index)
        resampled.append(rate_and_threshold(scores[rows], others[rows])[0])
    low, high = np.percentile(resampled, [2.5, 97.5])
    return EqualError(
        rate=round(rate, 4),
        rate_95=(round(float(low), 4), round(float(high), 4)),
        threshold=round(threshold, 4),
        people=count,
        pairs=int(others.sum()),
    )


def rate_and_threshold(scores: Values, others: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The share refused of the own and accepted of the others where both are the nearest."""
    own, wrong = np.sort(np.diag(scores)), np.sort(scores[others])
    thresholds = np.concatenate([own, wrong])
    refused = np.searchsorted(own, thresholds, side="left") / len(own)
    accepted = 1 - np.searchsorted(wrong, thresholds, side="left") / len(wrong)
    best = int(np.abs(refused - accepted).argmin())
    return float(refused[best] + accepted[best]) / 2, float(thresholds[best])


def _decoded(pixels: Pixels) -> Pixels:
    return through_vae(Checkpoint.open(SHIPPED_MODEL).vae_decoder(), pixels)


def _kept(path: Path, make: Callable[[], Pixels]) -> Pixels:
    if not path.is_file():
        made = make()
        with atomic_path(path) as partial_path, partial_path.open("wb") as file:
            np.save(file, made)
    found: Pixels = np.load(path)
    return found


def parser() -> argparse.ArgumentParser:
    flags = command_parser("mini.train_critics", __doc__, ["--folder", "build/critics"])
    flags.add_argument(
        "--folder", type=Path, default=Path("build/critics"), help="where what was made is kept"
    )
    flags.add_argument(
        "--minutes", type=float, default=math.inf, metavar="N", help="of each training"
    )
    return flags


def main() -> None:
    """Train, ship, and say what the verifier gets wrong."""
    options = parser().parse_args()
    torch.set_num_threads(1)
    train(options.folder, 60 * options.minutes)
    found = ship(options.folder).through_vae
    low, high = found.rate_95
    print(f"equal-error rate {found.rate:.4f} [{low:.4f}, {high:.4f}] of {found.people} people")


if __name__ == "__main__":
    main()
