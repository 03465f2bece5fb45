"""The model card that a bundle carries: README.md, of what its manifest says and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

from engines import commands
from engines.bundle.manifest import Manifest

CARD_NAME = "README.md"
# Of a line of a license that nobody looked up.
_UNKNOWN = "unknown"

_TEXT = """---
license: other
license_name: see-sources
library_name: face-diffuser
pipeline_tag: text-to-image
tags: {tags}
---

# Face-Diffuser bundle, {precision}, {px} px

Draws a scene from a text prompt with given people in it, from one photo each and without
fine-tuning (Face-Diffuser, Wang et al., CVPR 2024,
<https://arxiv.org/abs/2311.10329>). Made by `{build}`; drawing needs no PyTorch.

![What this bundle draws](preview.png)

## Draw with it

    {draw}

    from face_diffuser import FaceDiffuser, Request

    with FaceDiffuser.open("bundle") as face_diffuser:
        request = Request(prompt="a man <|image|> in a park", references=["him.jpg"], seed=7)
        face_diffuser.generate(request).pictures[0].save("park.png")

`{inspect}` tells all that is inside, its plans among it and what was proved of them; `{verify}`
checks every
digest. A bundle holds programs for GPUs: open only one whose origin you know.

## How exact it is

Relative L2 from the library's own PyTorch modules in float32, measured when it was built. A
graph beyond its bound is not published.

| component | graph | distance | bound |
|---|---|---|---|
{parity}

{pipeline}

## What it was made from

| file | SHA-256 |
|---|---|
{sources}

Made with {tools}.

## Licenses and terms

{licenses}

{terms}

## What it is for, and what not

Pictures of people who agreed to be in them. A picture of a person is personal data, and so is
an identity that is encoded from a photo. The
pictures are marked as made by a model (PNG metadata); leave the mark in. What the people and
scenes look like that the weights were trained on
decides whom it draws well: this card knows nothing of that, see the sources.
"""


def model_card(manifest: Manifest) -> str:
    """The card in Markdown. Plans come and go after it is written, so it names none."""
    return _TEXT.format(
        tags=json.dumps(["face-diffuser", "onnx", str(manifest.precision), "personalization"]),
        precision=manifest.precision,
        px=manifest.dimensions.native_px,
        build=commands.typed(commands.BUILD),
        draw=commands.typed(
            commands.DRAW, "a man <|image|> in a park", "--reference", "him.jpg",
            "--bundle", "bundle", "--out", "park.png",
        ),
        inspect=commands.typed(commands.INSPECT, "bundle"),
        verify=commands.verified("bundle"),
        parity="\n".join(_parity(manifest)),
        pipeline=_pipeline(manifest),
        sources="\n".join(
            f"| `{name}` | `{digest}` |" for name, digest in manifest.sources.items()
        )
        or "| none: the weights are random | |",
        tools=", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
        licenses="\n".join(f"- {line}" for line in manifest.licenses),
        terms=_terms(manifest),
    )  # fmt: skip


def _parity(manifest: Manifest) -> Iterator[str]:
    for component, record in manifest.components.items():
        for graph, figures in record.parity.items():
            name = {"onnx": record.onnx, "cpu_onnx": record.cpu_onnx}.get(graph, graph)
            yield f"| {component} | `{name}` | {figures.relative_l2:.1e} | {figures.bound:.1e} |"


def _pipeline(manifest: Manifest) -> str:
    found = manifest.pipeline_parity
    if "relative_l2" not in found:
        return "The whole pipeline was not compared."
    return (
        f"The whole pipeline's final latents are within {found['relative_l2']:.1e} "
        f"(bound {found['bound']:g})."
    )


def _terms(manifest: Manifest) -> str:
    if any(_UNKNOWN in line or "see its page" in line for line in manifest.licenses):
        return (
            "Not all of these are known. Whoever passes this bundle on should look them up first, "
            "and write them here."
        )
    return "All of these hold for the bundle."
