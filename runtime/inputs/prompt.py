"""Prompts to token ids, with the released rule for <|image|>: it marks the token before it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import tokenizers

from engines.errors import BundleCorruptError, PromptError

MARKER = "<|image|>"
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PromptTokens:
    """A prompt's token ids, each [tokens] int32.

    text_ids: without markers, cut so that it ends in the end token. subject_ids: the same words,
    cut at the window's end (as released). subject_positions: each person's token, in order.
    """

    text_ids: Ids
    subject_ids: Ids
    subject_positions: tuple[int, ...]


class Tokenizer:
    """CLIP's byte-pair tokenizer with a window of so many tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, window: int) -> None:
        # A tokenizer.json may carry the limits of whoever saved it.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._window = window
        bos, eos = tokenizer.token_to_id(_BOS), tokenizer.token_to_id(_EOS)
        if bos is None or eos is None:
            raise BundleCorruptError(f"this is not a CLIP tokenizer: it has no {_BOS} or {_EOS}")
        self._bos, self._eos = bos, eos

    @classmethod
    def open(cls, path: Path, window: int) -> Tokenizer:
        """Read a tokenizer.json; raises BundleCorruptError if it is not CLIP's."""
        import tokenizers  # on use: it takes a tenth of importing the runtime

        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            # The tokenizers library raises bare Exception.
            raise BundleCorruptError(f"{path} is not a tokenizer: {error}") from error
        return cls(tokenizer, window)

    def text_ids(self, text: str) -> Ids:
        """Start, words, end, padded with end; words that do not fit are dropped."""
        words = self._words(text)[: self._window - 2]
        return self._padded([self._bos, *words, self._eos])

    def prompt_tokens(self, prompt: str, num_references: int) -> PromptTokens:
        """Ids of a prompt whose every <|image|> names a person.

        Raises PromptError if the markers and references differ in number, if a marker has no word
        before it, if a person lies beyond the window, or if the text is not valid Unicode.
        """
        *parts, tail = prompt.split(MARKER)
        if len(parts) != num_references or not parts:
            raise PromptError(
                f"the prompt has {len(parts)} {MARKER} and there are {num_references} references; "
                f"write one {MARKER} after the word for each person and give a reference for each"
            )
        ids, positions = [self._bos], []
        for number, part in enumerate(parts, 1):
            ids += self._words(part)
            position = len(ids) - 1
            if ids[-1] == self._bos or position in positions:
                raise PromptError(
                    f"{MARKER} number {number} has no word of its own before it; "
                    f'write for example "a man {MARKER} and a woman {MARKER}"'
                )
            if position >= self._window:
                raise PromptError(
                    f"the person of {MARKER} number {number} is token {position + 1} of the "
                    f"prompt, the model reads {self._window}; shorten the prompt before it"
                )
            positions.append(position)
        ids += [*self._words(tail), self._eos]
        text = "".join([*parts, tail])
        return PromptTokens(self.text_ids(text), self._padded(ids), tuple(positions))

    def _words(self, text: str) -> list[int]:
        """Byte-pair ids of a text, HTML entities resolved as CLIP does."""
        text = html.unescape(html.unescape(text))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text has no valid character at place {error.start + 1} "
                f"({text[error.start]!r}); write it again as UTF-8"
            ) from error
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _padded(self, ids: list[int]) -> Ids:
        padding = [self._eos] * (self._window - len(ids))
        return np.array([*ids, *padding][: self._window], np.int32)
