"""Several requests drawn in one call: which go together, what they start from, what each gets."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import fields, replace

import numpy as np

from engines.contract import LATENT_PX
from engines.guides import Pass
from engines.tune.settings import CallTime
from runtime.method.guidance import Float32Array
from runtime.method.saliency import Saliency
from runtime.preparation import latents_area
from runtime.request import Request
from runtime.result import StepInfo, StepSaliency
from runtime.trajectory import Drawn, PassEmbeds

# What each picture of a call has for itself. All else is the call's: its steps and their numbers.
_OWN = {
    "prompt", "negative_prompt", "references", "reference_resolution", "seed", "num_images",
    "latents", "preset", "height", "width",
}  # fmt: skip


def form_of(request: Request, native_px: int) -> Hashable:
    """What requests must have in common to be drawn in one call."""
    shared = (getattr(request, each.name) for each in fields(request) if each.name not in _OWN)
    return (latents_area(request, native_px), *shared)


def companions(
    requests: Sequence[Request], call: CallTime | None, native_px: int
) -> tuple[int, ...]:
    """Which requests that wait are best drawn in one call with the first of them, by index.

    Those of its form, as many as cost less together than alone by what was measured; the first
    alone where nothing was, or where pictures are larger than those that were measured. call: of
    the engine that draws. native_px: side of the picture that it was measured with.
    """
    first = requests[0]
    height, width = latents_area(first, native_px)
    if call is None or height * width > (native_px // LATENT_PX) ** 2:
        return (0,)
    form = form_of(first, native_px)
    same = [at for at, each in enumerate(requests) if form_of(each, native_px) == form]
    for count in range(len(same), 1, -1):
        if call.pays([requests[at].num_images for at in same[:count]]):
            return tuple(same[:count])
    return (0,)


def joined(embeds: Sequence[PassEmbeds], requests: Sequence[Request]) -> PassEmbeds:
    """Each request's prompt embeds [tokens, text_width] as [images, tokens, text_width] of all."""

    def rows(guidance_pass: Pass) -> Float32Array:
        pairs = zip(embeds, requests, strict=True)
        return np.concatenate(
            [np.repeat(each[guidance_pass][None], it.num_images, 0) for each, it in pairs]
        )

    return {each: rows(each) for each in embeds[0]}


def places(requests: Sequence[Request]) -> list[slice]:
    """Where each request's images are among those of the call."""
    ends = np.cumsum([each.num_images for each in requests])
    pairs = zip(requests, ends, strict=True)
    return [slice(int(end) - each.num_images, int(end)) for each, end in pairs]


def drawn_of(drawn: Drawn, place: slice) -> Drawn:
    """One request's part of a call's."""
    return replace(drawn, images=drawn.images[place], saliency=tuple(_maps(drawn.saliency, place)))


def told_of(info: StepInfo, place: slice) -> StepInfo:
    """The same of a step."""
    return replace(info, read_latents=lambda: info.read_latents()[place])


def _maps(steps: Sequence[StepSaliency], place: slice) -> Iterator[StepSaliency]:
    for each in steps:
        maps = each.saliency
        part = Saliency(tdm=maps.tdm[place], sdm=maps.sdm[place], mask=maps.mask[place])
        yield replace(each, saliency=part)
