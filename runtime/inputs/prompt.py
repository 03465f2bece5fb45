"""Prompts to token ids, with the released rule for <|image|>: it marks the token before it."""

from __future__ import annotations

import html
import re
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
Positions = tuple[int, ...]

# What is written where the marker was meant: <image>, <|img|>, [image], <| image |> ...
_NEARLY = re.compile(r"[<\[{(]\s*\|?\s*(?:image|img)\s*\d*\s*\|?\s*[>\]})]", re.IGNORECASE)


@dataclass(frozen=True)
class TextTokens:
    """A text's token ids, [tokens] int32. unread: the end of the text that did not fit, or ""."""

    ids: Ids
    unread: str


@dataclass(frozen=True)
class PromptTokens:
    """A prompt's token ids, each [tokens] int32.

    text_ids: without markers, cut so that it ends in the end token. subject_ids: the same words,
    cut at the window's end (as released). subject_positions: each person's token, in order.
    unread: the end of the prompt that did not fit, or "".
    """

    text_ids: Ids
    subject_ids: Ids
    subject_positions: Positions
    unread: str


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
            tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:
            if type(error) is not Exception and not isinstance(error, OSError | ValueError):
                raise  # such as a signal handler's own; the tokenizers library raises Exception
            raise BundleCorruptError(f"{path} is not a tokenizer: {error}") from error
        return cls(tokenizer, window)

    def text_tokens(self, text: str) -> TextTokens:
        """Start, words, end, padded with end; words that do not fit are told as unread."""
        words, starts, read = self._words_and_places(text)
        fit = self._window - 2
        unread = read[starts[fit] :].strip() if len(words) > fit else ""
        return TextTokens(self._padded([self._bos, *words[:fit], self._eos]), unread)

    def text_ids(self, text: str) -> Ids:
        """The ids alone of text_tokens."""
        return self.text_tokens(text).ids

    def prompt_tokens(self, prompt: str, num_references: int) -> PromptTokens:
        """Ids of a prompt whose every <|image|> names a person.

        Raises PromptError if the markers and references differ in number, if a marker has no word
        before it, if a person lies beyond the window, or if the text is not valid Unicode.
        """
        ids, positions, text = self._subject_ids(prompt, num_references)
        whole = self.text_tokens(text)
        return PromptTokens(whole.ids, self._padded(ids), positions, whole.unread)

    def check(self, prompt: str, num_references: int, negative_prompt: str) -> None:
        """Raise PromptError for what `prompt_tokens` and `text_tokens` would refuse."""
        self._subject_ids(prompt, num_references)
        _readable(negative_prompt)

    def _subject_ids(self, prompt: str, num_references: int) -> tuple[list[int], Positions, str]:
        """All ids of a prompt without its markers, the people's positions, and its text."""
        parts, tail = parts_of(prompt, num_references)
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
        return ids, tuple(positions), "".join([*parts, tail])

    def _words(self, text: str) -> list[int]:
        return self._words_and_places(text)[0]

    def _words_and_places(self, text: str) -> tuple[list[int], list[int], str]:
        """Byte-pair ids, where each starts, and the text they are of: HTML entities resolved."""
        text = _readable(text)
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return found.ids, [start for start, _ in found.offsets], text

    def _padded(self, ids: list[int]) -> Ids:
        padding = [self._eos] * (self._window - len(ids))
        return np.array([*ids, *padding][: self._window], np.int32)


def _readable(text: str) -> str:
    """The text with its HTML entities resolved. Raises PromptError unless it is valid Unicode."""
    text = html.unescape(html.unescape(text))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the text has no valid character at place {error.start + 1} "
            f"({text[error.start]!r}); write it again as UTF-8"
        ) from error
    return text


def parts_of(prompt: str, num_references: int) -> tuple[list[str], str]:
    """A prompt's text before each <|image|>, and what is left.

    Raises PromptError unless there is one for each reference.
    """
    *parts, tail = prompt.split(MARKER)
    if len(parts) != num_references or not parts:
        raise PromptError(
            f"the prompt has {len(parts)} {MARKER} and there are {num_references} references; "
            f"write one {MARKER} after the word for each person and give a reference for each"
            + _like_a_marker(prompt)
        )
    return parts, tail


def _like_a_marker(prompt: str) -> str:
    found = next((each for each in _NEARLY.findall(prompt) if each != MARKER), None)
    return "" if found is None else f"; {found!r} is no marker, write {MARKER}"
