"""Damaged checkpoints, by the seed: `python -m tests.export.checkpoint.fuzz --cases 290`.

Each case changes one file of a tiny model in one way, and reads all that an export reads. Right is
a refusal of the toolkit's own, or a model that is what the changed files say: its weights are those
that the plain readers of the formats give, its schedule is diffusers' and its wrappers answer as
the libraries do.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import FaceDiffuserError
from export.checkpoint.checkpoint import Checkpoint, Sources
from export.checkpoint.model_facts import dimensions_of, noise_schedule_of, tokenizer_json
from export.checkpoint.modules_from_weights import vae_from
from export.checks.library import library_answer
from export.checks.parity import gate_inputs
from export.graph.modules import run, wrapped
from tests.export.checkpoint.conftest import (
    SDM_MODULES,
    TEXT,
    UNET,
    VAE,
    VISION,
    save_bin,
    tensors_of,
    write_json,
)
from tests.paths import GOLDEN

# Of a case that takes a second on an idle machine; the slice in tests may run on a busy one.
LIMIT_S = 120
Tensors = dict[str, Tensor]
Random = random.Random
_VALUES: tuple[Any, ...] = (
    None, -1, 0, 1, 3, 10**30, 1e308, float("nan"), True, False, "", "x", "1", [], [1], [[]], {},
    {"a": 1}, "\ud800", [None], -0.5, 77, 2**31,
)  # fmt: skip


def write_model(folder: Path) -> None:
    """A tiny model that could be exported: one checkpoint in .bin, the other in safetensors."""
    torch.manual_seed(3)
    base = folder / "base"
    blocks = {"block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4}
    vae = VAE | blocks | {"up_block_types": ["UpDecoderBlock2D"] * 4}
    for part, config in (("unet", UNET), ("text_encoder", TEXT), ("vae", vae)):
        write_json(base / part / "config.json", config)
    shutil.copytree(GOLDEN / "base" / "scheduler", base / "scheduler")
    shutil.copytree(GOLDEN / "base" / "tokenizer", base / "tokenizer")
    write_json(folder / "clip" / "config.json", VISION)
    save_bin(vae_from(vae).state_dict(), base / "vae" / "diffusion_pytorch_model.bin")
    save_bin(tensors_of(SDM_MODULES), folder / "SDM" / "pytorch_model.bin")
    (folder / "TDM").mkdir()
    tdm = tensors_of({"unet": SDM_MODULES["unet"]})
    save_file(tdm, folder / "TDM" / "model.safetensors")


def sources_in(folder: Path) -> Sources:
    parts = {"base": "base", "tdm": "TDM", "sdm": "SDM", "image_encoder": "clip"}
    return Sources(**{part: str(folder / name) for part, name in parts.items()})


def flipped(content: bytearray, rng: Random) -> bytes:
    for _ in range(rng.choice((1, 4, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def zeroed(content: bytearray, rng: Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((1, 100, 5000)))
    return bytes(content[:start]) + bytes(end - start) + bytes(content[end:])


BYTES: dict[str, Callable[[bytearray, Random], bytes]] = {
    "flipped": flipped,
    "zeroed": zeroed,
    "cut": lambda content, rng: bytes(content[: rng.randrange(len(content))]),
    "head cut": lambda content, rng: bytes(content[rng.randrange(1, len(content)) :]),
    "appended": lambda content, rng: bytes(content) + rng.randbytes(100),
    "inserted": lambda content, rng: bytes(content[:9]) + rng.randbytes(16) + bytes(content[9:]),
    "noise": lambda content, rng: rng.randbytes(len(content)),
    "long header": lambda content, _: b"\xff" * 8 + bytes(content[8:]),
    "empty": lambda *_: b"",
    "pointer": lambda *_: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}


def _set(config: dict[str, Any], rng: Random) -> object:
    return config | {rng.choice(list(config)): rng.choice(_VALUES)}


def _dropped(config: dict[str, Any], rng: Random) -> object:
    name = rng.choice(list(config))
    return {key: value for key, value in config.items() if key != name}


def _deep(*_: object) -> object:
    value: object = 1
    for _number in range(900):
        value = [value]
    return {"a": value}


CONFIGS: dict[str, Callable[[dict[str, Any], Random], object]] = {
    "set": _set,
    "set again": _set,
    "dropped": _dropped,
    "deep": _deep,
    "list": lambda config, _: [config],
    "held": lambda config, _: {"config": config},
    "no fields": lambda *_: {},
}


def _one(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors, Random], Tensors]:
    def changed(tensors: Tensors, rng: Random) -> Tensors:
        name = rng.choice(list(tensors))
        return tensors | {name: change(tensors[name])}

    return changed


def _renamed(tensors: Tensors, rng: Random) -> Tensors:
    name = rng.choice(list(tensors))
    return {(key[::-1] if key == name else key): value for key, value in tensors.items()}


TENSORS: dict[str, Callable[[Tensors, Random], Tensors]] = {
    "NaN": _one(lambda t: torch.full(t.shape, float("nan"))),
    "infinite": _one(lambda t: torch.full(t.shape, float("inf"))),
    "whole numbers": _one(lambda t: t.to(torch.int64)),
    "bool": _one(lambda t: t > 0),
    "float64": _one(lambda t: t.double()),
    "float8": _one(lambda t: t.to(torch.float8_e4m3fn)),
    "scalar": _one(lambda _: torch.tensor(1.0)),
    "longer": _one(lambda t: torch.cat([t, t])),
    "no elements": _one(lambda _: torch.zeros(0)),
    "complex": _one(lambda t: t.to(torch.complex64)),
    "one missing": lambda tensors, _: dict(list(tensors.items())[1:]),
    "one more": lambda tensors, _: tensors | {"unet.more.weight": torch.ones(2)},
    "renamed": _renamed,
    "wrapped": lambda tensors, _: {f"module.{name}": t for name, t in tensors.items()},
    "held": lambda tensors, _: {f"model.{name}": t for name, t in tensors.items()},
    "twice": lambda tensors, _: tensors | {f"module.{name}": t for name, t in tensors.items()},
    "averages": lambda tensors, _: tensors | {f"ema_{n}": t + 1 for n, t in tensors.items()},
    "LoRA": lambda tensors, _: {f"{n}.lora_A.weight": t for n, t in tensors.items()},
    "no tensors": lambda *_: {},
}


def _gone(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _linked(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return link


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


PLACES: dict[str, Callable[[Path], None]] = {
    "gone": _gone,
    "a folder": _folder,
    "dangling": _linked("/nonexistent/blob"),
    "itself": _linked("model.safetensors"),
    "endless": _linked("/dev/zero"),
    "a pipe": _pipe,
}


def mutate(model: Path, rng: Random) -> str:
    """Change one file of the model in one way; returns which and how."""
    files = sorted(path for path in model.rglob("*") if path.is_file())
    weights = [path for path in files if path.suffix in (".bin", ".safetensors")]
    configs = [path for path in files if path.suffix == ".json" and path.stat().st_size < 1 << 14]
    kind = rng.choice(("bytes", "config", "config", "tensors", "tensors", "place"))
    path = rng.choice({"config": configs, "tensors": weights}.get(kind, files))
    if kind == "bytes":
        how = rng.choice(list(BYTES))
        path.write_bytes(BYTES[how](bytearray(path.read_bytes()), rng))
    elif kind == "config":
        how = rng.choice(list(CONFIGS))
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(CONFIGS[how](config, rng)), encoding="utf-8")
    elif kind == "tensors":
        how = rng.choice(list(TENSORS))
        _save(TENSORS[how](_load(path), rng), path)
    else:
        how = rng.choice(list(PLACES))
        PLACES[how](path)
    return f"{path.relative_to(model)} {kind}: {how}"


def _load(path: Path) -> Tensors:
    loaded: Tensors = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    )
    return loaded


def _save(tensors: Tensors, path: Path) -> None:
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path) if path.suffix == ".safetensors" else torch.save(whole, path)


def read_all(sources: Sources, *, compare: bool) -> None:
    """Read what an export reads; raises what it raises, AssertionError for another model.

    compare: ask the modules too, which configurations alone can make another.
    """
    checkpoint = Checkpoint.open(sources)
    dimensions = dimensions_of(checkpoint)
    schedule = noise_schedule_of(checkpoint)
    assert tokenizer_json(checkpoint)
    assert checkpoint.source_digests()
    assert checkpoint.licenses()
    for component in Component:
        assert checkpoint.digest(component)
    cls: Any = DDIMScheduler
    expected = cls.from_config(checkpoint.scheduler_config()).alphas_cumprod.double().numpy()
    np.testing.assert_allclose(schedule.alphas_cumprod(), expected, rtol=1e-4)
    modules = {
        Component.TEXT_ENCODER: checkpoint.text_encoder(),
        Component.IMAGE_ENCODER: checkpoint.image_encoder(),
        Component.FUSION_MLP: checkpoint.fusion_mlp(),
        Component.VAE_DECODER: checkpoint.vae_decoder(),
    } | {unet: checkpoint.unet(unet) for unet in NOISE_PREDICTORS}
    stored = [
        tensor.float()
        for folder in (Path(sources.base) / "vae", Path(sources.tdm), Path(sources.sdm))
        for path in folder.iterdir()
        if path.suffix in (".bin", ".safetensors")
        for tensor in _load(path).values()
    ]
    for component, module in modules.items():
        for name, tensor in module.state_dict().items():
            assert any(
                tensor.shape == each.shape and torch.equal(tensor, each) for each in stored
            ), f"{component} {name} is in no file"
        if not compare:
            continue
        inputs = next(iter(gate_inputs(component, dimensions)))
        answer = library_answer(component, module, inputs)
        found = run(wrapped(component, module), inputs)
        torch.testing.assert_close(found, answer, rtol=1e-3, atol=1e-4, equal_nan=True)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def late(_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {LIMIT_S} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(model: Path, seed: int) -> tuple[str, str, str]:
    """What was done, what came of it (refused, read, raw, hang, other), and its words."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(model, Path(folder) / "model"))
        done = mutate(copy, Random(seed))
        try:
            with _time_limit(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_all(sources_in(copy), compare="config:" in done)
        except FaceDiffuserError as error:
            words = str(error)
            return done, "refused" if 0 < len(words) <= 2000 else "long", words
        except TimeoutError as error:
            return done, "hang", str(error)
        except AssertionError as error:
            return done, "other", str(error)
        except Exception:
            return done, "raw", traceback.format_exc(limit=-3)
        return done, "read", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=290)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="tell of every case")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        write_model(model)
        read_all(sources_in(model), compare=True)
        for seed in range(options.seed, options.seed + options.cases):
            done, came, words = outcome(model, seed)
            counts[came] += 1
            if options.verbose or came not in ("refused", "read"):
                print(f"seed {seed}: {done}: {came}: {words}", flush=True)
    print(dict(counts))
    return 0 if set(counts) <= {"refused", "read"} else 1


if __name__ == "__main__":
    raise SystemExit(main())
