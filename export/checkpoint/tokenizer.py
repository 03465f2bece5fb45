"""CLIP's tokenizer, as a base brings it: found whole and to fit the text encoder, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from export.checkpoint.configurations import refuse
from export.checkpoint.tensor_files import refusing
from export.checkpoint.weight_files import CheckpointError, read_json

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_TOKENIZER: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast", None),
    "padding_side": ("right", None),
    "truncation_side": ("right", None),
}


def tokenizer_of(folder: Path, vocabulary: int, tokens: int) -> Any:
    """CLIP's tokenizer from a folder, found whole and to fit the text encoder.

    vocabulary, tokens: how many ids the text encoder embeds, and at how many places. Raises
    CheckpointError.
    """
    _check_tokenizer_files(folder)
    with refusing(lambda error: f"{folder} holds no whole CLIP tokenizer: {error!s:.300}"):
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
        backend = tokenizer.backend_tokenizer
    special = {name: str(getattr(tokenizer, f"{name}_token")) for name in ("bos", "eos", "pad")}
    for name, wanted in (("bos", _BOS), ("eos", _EOS), ("pad", _EOS)):
        if special[name] != wanted:
            raise CheckpointError(
                f"{folder} says {name}_token {special[name]!r}; only {wanted!r} is supported, as "
                "Stable Diffusion 1.5 has it"
            )
    largest = max(backend.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary:
        raise CheckpointError(
            f"{folder} gives ids up to {largest}, the text encoder embeds {vocabulary} "
            "(vocab_size); they do not belong together, check --base and --sdm"
        )
    if tokenizer.model_max_length < tokens:
        raise CheckpointError(
            f"{folder} says model_max_length {tokenizer.model_max_length}, the text encoder has "
            f"{tokens} places (max_position_embeddings); a shorter window is not supported"
        )
    return tokenizer


def _check_tokenizer_files(folder: Path) -> None:
    """Raise CheckpointError where a file of the tokenizer is not what its name says."""
    whole, vocabulary, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if not whole.is_file() and not vocabulary.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json or vocab.json")
    if not whole.is_file() and not merges.is_file():
        raise CheckpointError(f"{merges} is missing; vocab.json says nothing without it")
    for path in folder.glob("*.json"):
        read_json(path)
    if merges.is_file():
        lines = merges.read_text(encoding="utf-8", errors="replace").splitlines()
        if not any(len(line.split()) == 2 for line in lines if not line.startswith("#version")):
            raise CheckpointError(f"{merges} holds no merge; copy or download it again")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            config = read_json(folder / name)
            _check_special_tokens(config, folder / name)
            refuse(config, _TOKENIZER, folder / name)


def _check_special_tokens(config: Mapping[str, Any], where: Path) -> None:
    for name, wanted in (("bos_token", _BOS), ("eos_token", _EOS), ("pad_token", _EOS)):
        said = config.get(name)
        content = said.get("content") if isinstance(said, Mapping) else said
        if content not in (None, wanted):
            raise CheckpointError(
                f"{where} says {name} {json.dumps(content):.80}; only {wanted!r} is supported"
            )
