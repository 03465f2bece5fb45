"""The golden checkpoint's tokenizer, made of its vocabulary without transformers."""

from __future__ import annotations

import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.paths import GOLDEN

_FOLDER = GOLDEN / "base" / "tokenizer"
# CLIP's: contractions, letters, single digits, runs of anything else.
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
VOCABULARY = 2050


def clip_tokenizer() -> Tokenizer:
    """The same ids as CLIPTokenizer's."""
    vocabulary = json.loads((_FOLDER / "vocab.json").read_text())
    assert len(vocabulary) == VOCABULARY
    lines = (_FOLDER / "merges.txt").read_text().splitlines()[1:]
    merges = [(first, second) for first, second in (line.split() for line in lines if line)]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return tokenizer
