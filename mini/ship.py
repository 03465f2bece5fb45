"""Writes a trained model in the released layout, in half precision.

    python -m mini.ship [--folder FOLDER] [--out MODEL]

Also redraws examples/references/, portraits of two identities that training never saw, and the
portraits that 8-bit scales are calibrated with.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from engines.cli.parser import command_parser
from export import shipped
from export.checkpoint.random_weights import SCHEDULER_CONFIG
from mini.architecture import INDEX, UNET, VAE, VISION
from mini.models import new_probes, new_sdm, new_tdm, text_config, trained_vae
from mini.probes import PROBES_FILE
from mini.tokenizer import make_tokenizer
from mini.train import FASTCOMPOSER, PLANS
from mini.training.diffusion import SubjectAugmented, TextDriven
from mini.training.loop import latest_average
from mini.world import Look, draw_portrait, random_look

REFERENCE_PX = 256
CALIBRATION_PX = 128

HIM = Look(
    kind="man", skin="tan", hair_color="black", hair_style="curly", eye_color="brown",
    glasses="round", beard="full", hat="none", clothes_color="purple", pattern="stripes",
)  # fmt: skip
HER = Look(
    kind="woman", skin="pale", hair_color="red", hair_style="long", eye_color="green",
    glasses="none", beard="none", hat="none", clothes_color="yellow", pattern="dots",
)  # fmt: skip


def ship(folder: Path, out: Path) -> None:
    """The averaged weights of every stage's last checkpoint, with their curves beside them."""
    latents = torch.load(folder / "latents.pt", weights_only=True)
    tdm = latest_average(new_tdm(folder), folder, "tdm")
    sdm = latest_average(new_sdm(), folder, "sdm")
    base = out / "base"
    shutil.rmtree(base / "tokenizer", ignore_errors=True)
    make_tokenizer(base / "tokenizer")
    configs = {
        "base/model_index.json": INDEX,
        "base/unet/config.json": UNET,
        "base/vae/config.json": VAE | {"scaling_factor": latents["factor"]},
        "base/text_encoder/config.json": text_config(folder),
        "base/scheduler/scheduler_config.json": SCHEDULER_CONFIG,
        "image_encoder/config.json": VISION,
    }
    for name, config in configs.items():
        _write_json(out / name, config, indent=2)
    vae = trained_vae(folder)
    save(base / "vae" / "diffusion_pytorch_model.safetensors", {"": vae})
    save(out / "TDM" / "model.safetensors", {"unet": tdm.unet})
    save(out / "SDM" / "model.safetensors", _with_people(tdm, sdm))
    probes = latest_average(new_probes(), folder, "probes")
    save(out.parent / PROBES_FILE.name, {"": probes})
    curves = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in PLANS
        if name != FASTCOMPOSER
    }
    _write_json(out.parent / "curves.json", curves, indent=None)


def ship_fastcomposer(folder: Path, out: Path) -> None:
    """FastComposer's last checkpoint, to be exported as both U-Nets."""
    tdm = latest_average(new_tdm(folder), folder, "tdm")
    model = latest_average(new_sdm(), folder, FASTCOMPOSER)
    save(out / "model.safetensors", _with_people(tdm, model))


def _with_people(tdm: TextDriven, model: SubjectAugmented) -> dict[str, nn.Module]:
    """A model that draws with people, with TDM's text encoder, by the released names."""
    return {
        "text_encoder": tdm.text_encoder,
        "image_encoder": model.image_encoder,
        "postfuse_module": model.fusion_mlp,
        "unet": model.unet,
    }


def draw_references(folder: Path) -> None:
    """him.png and her.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, look, seed in (("him", HIM, 1), ("her", HER, 2)):
        if not look.held_out:
            raise ValueError(f"{name} may occur in the training set: {look}")
        photo = draw_portrait(look, random.Random(seed), side_px=REFERENCE_PX)
        Image.fromarray(photo).save(folder / f"{name}.png", optimize=True)


def draw_calibration(folder: Path) -> None:
    """Portraits of six people of the training's side, in the image encoder's own size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        look = random_look(random.Random(f"calibration {number}"), held_out=False)
        photo = draw_portrait(look, random.Random(number), side_px=CALIBRATION_PX)
        Image.fromarray(photo).save(folder / f"{number}.png", optimize=True)


def save(path: Path, modules: dict[str, nn.Module]) -> None:
    """The modules' tensors in one half-precision file, named prefix.name."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        for name, tensor in module.state_dict().items():
            tensors[f"{prefix}.{name}".lstrip(".")] = tensor.half().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def _write_json(path: Path, content: Any, *, indent: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    flags = command_parser("mini.ship", __doc__, ["--folder", "build/mini"])
    flags.add_argument(
        "--folder", type=Path, default=Path("build/mini"), help="where training kept its stages"
    )
    flags.add_argument(
        "--out", type=Path, default=shipped.MODEL, help="where the weights are written"
    )
    flags.add_argument(
        "--fastcomposer", type=Path, metavar="FOLDER",
        help="write FastComposer's checkpoint here, and nothing else (default: the shipped model)",
    )  # fmt: skip
    return flags


def main() -> None:
    """Model and references."""
    options = parser().parse_args()
    if options.fastcomposer:
        ship_fastcomposer(options.folder, options.fastcomposer)
        return
    ship(options.folder, options.out)
    if options.out == shipped.MODEL:
        draw_references(shipped.REFERENCES)
        draw_calibration(shipped.CALIBRATION)


if __name__ == "__main__":
    main()
