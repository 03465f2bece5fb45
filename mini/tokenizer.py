"""Trains a small byte-level BPE in CLIP's format on the captions of the drawn world."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from mini.world import ATTRIBUTES, MARKER, caption, random_setting

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_MERGES = 1000
_TOKENS = 77

# Captions that the merges are learned from; all words of the world are in them.
_CAPTIONS = 4000


def captions() -> list[str]:
    """Captions of the world without markers; the same on each call."""
    texts = []
    for seed in range(_CAPTIONS):
        rng = random.Random(f"tokenizer {seed}")
        kinds = tuple(rng.choice(ATTRIBUTES["kind"]) for _ in range(rng.choice((1, 2))))
        texts.append(caption(random_setting(rng), kinds, rng).replace(f" {MARKER}", ""))
    return texts


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
