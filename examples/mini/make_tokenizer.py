"""Trains a small byte-level BPE in CLIP's format on captions made up from a word list.

Run by make_untrained.py; the vocabulary is this project's own.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_MERGES = 1000
_TOKENS = 77

_PEOPLE = (
    "man woman boy girl person child teenager baby grandfather grandmother father mother brother "
    "sister husband wife friend teacher doctor nurse chef farmer artist painter singer musician "
    "dancer astronaut soldier firefighter pilot king queen prince princess wizard knight pirate "
    "skateboarder surfer cyclist runner swimmer climber student scientist barista gardener"
).split()
_LOOKS = (
    "young old smiling laughing serious happy sad elegant tall short bearded blond brown red gray "
    "black white green blue yellow purple orange pink golden silver bright dark beautiful handsome"
).split()
_CLOTHES = (
    "hat coat scarf shirt dress jacket sweater suit uniform helmet crown glasses sunglasses apron "
    "hoodie kimono cape boots gloves necklace earrings tie backpack headphones umbrella"
).split()
_ACTIONS = (
    "standing sitting walking running reading writing cooking eating drinking dancing singing "
    "playing holding riding driving painting watching wearing talking smiling waving jumping "
    "swimming surfing skating climbing working sleeping posing gardening holding hands"
).split()
_THINGS = (
    "book guitar piano violin ball dog cat horse bird bicycle car boat cup coffee cake pizza "
    "flower flowers camera phone laptop newspaper lantern balloon kite surfboard skateboard sword"
).split()
_PLACES = (
    "park beach forest garden kitchen library street city market cafe restaurant office studio "
    "mountain desert river lake snow rain room bedroom classroom hospital castle temple jungle "
    "stage stadium museum bridge spaceship field farm train station airport mall island sunset"
).split()
_STYLES = (
    "a photo of|a painting of|an oil painting of|a watercolor of|a drawing of|a sketch of|"
    "a portrait of|a close-up of|a cartoon of|a picture of|a professional photo of|"
    "a black and white photo of|in the style of|high quality|highly detailed|best quality"
).split("|")
_GLUE = (
    "a an the and or with without in on at of to from near next behind front under over between by "
    "is are his her their he she they it this that two three one while during together each other"
).split()


def captions() -> list[str]:
    """Captions in which every word of the lists occurs several times; the same on each call."""
    words = itertools.cycle
    lists = (_STYLES, _LOOKS, _PEOPLE, _ACTIONS, _LOOKS, _PEOPLE, _CLOTHES, _THINGS, _PLACES, _GLUE)
    # Coprime strides vary the combinations.
    streams = [words(entries[i % 3 :] + entries[: i % 3]) for i, entries in enumerate(lists)]
    pattern = "{0} a {1} {2} {3} and a {4} {5} wearing a {6} with a {7} in the {8} {9}"
    return [pattern.format(*(next(stream) for stream in streams)) for _ in range(3000)]


def make_tokenizer(folder: Path) -> int:
    """Writes the tokenizer in both formats, slow and fast; returns the size of its vocabulary.

    As in CLIP's, the ids are: the byte symbols, the same at a word's end, the merges, BOS, EOS.
    """
    merges = _trained_merges()
    alphabet = sorted(ByteLevel.alphabet())
    entries = [*alphabet, *(symbol + _WORD_END for symbol in alphabet)]
    entries += [left + right for left, right in merges] + [BOS, EOS]
    entries = list(dict.fromkeys(entries))
    vocabulary = {entry: index for index, entry in enumerate(entries)}

    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": _TOKENS,
            **special,
        },
    )
    _fast_tokenizer(vocabulary, merges).save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def _trained_merges() -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first and the alphabetically first of equal ones.

    Written out because the tokenizers library breaks ties by chance.
    """
    counts = Counter(word for caption in captions() for word in re.findall(r"[a-z]+|-", caption))
    words = {(*word[:-1], word[-1] + _WORD_END): count for word, count in counts.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < _MERGES:
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, count in words.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_merged(pieces, best): count for pieces, count in words.items()}
    return merges


def _merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in pieces:
        # A piece that was just merged is longer than pair[0], so it cannot merge again.
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def _fast_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's own pipeline over this vocabulary."""
    from transformers import CLIPTokenizer

    # Pairs, which the library's own loader passes too, whatever the annotation says.
    pairs: Any = merges
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs)
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
