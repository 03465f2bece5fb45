"""Tokenization against the released code's ids, and its departures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tokenizers import models
from transformers import CLIPTokenizer

from runtime import BundleCorruptError, PromptError
from runtime.inputs.prompt import MARKER, Tokenizer
from tests.paths import GOLDEN

LIBRARY = CLIPTokenizer.from_pretrained(GOLDEN / "base" / "tokenizer").backend_tokenizer
ROWS = json.loads((GOLDEN / "tokenizer_rows.json").read_text())["rows"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(LIBRARY.to_str())
    return Tokenizer.open(path, 77)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["caption"][:30])
def test_ids_and_positions_are_the_released_ones(
    row: dict[str, object], tokenizer: Tokenizer
) -> None:
    caption = str(row["caption"])
    assert tokenizer.text_ids(str(row["text_only_caption"])).tolist() == row["text_only_ids"]
    markers = caption.count(MARKER)
    # Departures: a marker on the start token, two on one word, one beyond the window, none at all.
    if row["image_token_positions"] == [0] or markers == 0 or row["num_objects"] != markers:
        with pytest.raises(PromptError):
            tokenizer.prompt_tokens(caption, markers)
        return
    tokens = tokenizer.prompt_tokens(caption, markers)
    assert tokens.subject_ids.tolist() == row["input_ids"]
    assert list(tokens.subject_positions) == row["image_token_positions"]
    assert tokens.text_ids.tolist() == row["text_only_ids"]


@pytest.mark.parametrize(
    ("prompt", "references", "reason"),
    [
        ("a man <|image|>", 2, "has 1 .* 2 references; .* a reference for each$"),
        ("a man <image>", 1, r"has 0 .*; '<image>' is no marker, write <\|image\|>$"),
        ("a <|image|> and [img 2]", 2, r"has 1 .*; '\[img 2\]' is no marker, write"),
        ("a man", 0, "has 0"),
        ("<|image|> a man", 1, "no word of its own"),
        ("a man <|image|><|image|>", 2, "number 2 has no word"),
        ("man <|image|> <|image|>", 2, "number 2 has no word"),
        ("<|startoftext|><|image|> man", 1, "no word of its own"),
        ("a m\udce9n <|image|>", 1, "place 4"),
        ("very " * 90 + "old man <|image|>", 1, "shorten the prompt"),
    ],
)
def test_a_prompt_that_would_lose_a_person_is_refused(
    prompt: str, references: int, reason: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(PromptError, match=reason):
        tokenizer.prompt_tokens(prompt, references)


@pytest.mark.parametrize("words", [75, 76])
def test_a_person_may_take_the_windows_last_place_and_none_beyond(
    words: int, tokenizer: Tokenizer
) -> None:
    prompt = "a " * words + f"a {MARKER}"
    if words == 75:
        assert tokenizer.prompt_tokens(prompt, 1).subject_positions == (76,)
    else:
        with pytest.raises(PromptError, match="token 78"):
            tokenizer.prompt_tokens(prompt, 1)


def test_limits_stored_in_the_file_are_ignored(tokenizer: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(LIBRARY.to_str())
    backend.enable_truncation(5)
    backend.enable_padding(length=99)  # more than the window, let alone the text
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    limited = Tokenizer.open(tmp_path / "tokenizer.json", 77)
    text = "a photo of a man in the snow"
    assert limited.text_ids(text).tolist() == tokenizer.text_ids(text).tolist()


@pytest.mark.parametrize("text", ["salt &amp; pepper", "salt &amp;amp; pepper"])
def test_entities_are_resolved_twice_as_released(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.text_ids(text).tolist() == tokenizer.text_ids("salt & pepper").tolist()


def test_a_marker_parts_words_in_no_other_way_than_leaving_it_out(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.prompt_tokens(f"a man{MARKER}kind of <{MARKER}", 2)
    assert tokens.text_ids.tolist() == tokenizer.text_ids("a mankind of <").tolist()


@pytest.mark.parametrize("missing", ["<|startoftext|>", "<|endoftext|>"])
def test_a_tokenizer_without_either_end_is_not_clips(missing: str) -> None:
    vocabulary = {"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    del vocabulary[missing]
    with pytest.raises(BundleCorruptError, match="not a CLIP tokenizer"):
        Tokenizer(tokenizers.Tokenizer(models.BPE(vocabulary, [])), 77)


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_a_file_that_is_no_tokenizer_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleCorruptError, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path / "tokenizer.json", 77)


WORDS = st.sampled_from(["a", "man", "woman", "reading", "snow", "Zürich", "☂", "don't", "x1", ","])
TEXTS = st.lists(WORDS, min_size=1, max_size=45).map(" ".join)
BOUNDED = settings(max_examples=50, deadline=None, derandomize=True)


@BOUNDED
@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS, st.sampled_from(["", " "]))
def test_a_person_is_the_token_before_the_marker_wherever_it_stands(
    tokenizer: Tokenizer, parts: list[str], tail: str, space: str
) -> None:
    prompt = "".join(f"{part}{space}{MARKER}{space}" for part in parts) + tail
    # By the library itself, with no window.
    backend = tokenizers.Tokenizer.from_str(LIBRARY.to_str())
    ids = [backend.encode(part, add_special_tokens=False).ids for part in (*parts, tail)]
    places = [sum(map(len, ids[: number + 1])) for number in range(len(parts))]
    if places[-1] >= 77:
        with pytest.raises(PromptError, match="shorten the prompt"):
            tokenizer.prompt_tokens(prompt, len(parts))
        return
    tokens = tokenizer.prompt_tokens(prompt, len(parts))
    assert list(tokens.subject_positions) == places
    assert [tokens.subject_ids[place] for place in places] == [part[-1] for part in ids[:-1]]
    expected = tokenizer.text_tokens(prompt.replace(MARKER, ""))
    assert tokens.text_ids.tolist() == expected.ids.tolist()
    assert tokens.unread == expected.unread
    whole = [tokens.subject_ids[0], *itertools.chain(*ids), tokens.subject_ids[-1]]
    assert tokens.subject_ids.tolist()[: len(whole)] == whole[:77]


@BOUNDED
@given(st.lists(WORDS, min_size=60, max_size=90), st.integers(0, 5))
def test_what_a_window_does_not_hold_is_told_word_for_word(
    tokenizer: Tokenizer, words: list[str], spaces: int
) -> None:
    text = " ".join(words) + " " * spaces
    found = tokenizers.Tokenizer.from_str(LIBRARY.to_str()).encode(text, add_special_tokens=False)
    tokens = tokenizer.text_tokens(text)
    start, end = tokens.ids[0], tokens.ids[-1]
    assert tokens.ids.tolist()[:76] == [start, *found.ids[:75], *[end] * (75 - len(found.ids))]
    unread = "" if len(found.ids) <= 75 else text[found.offsets[75][0] :].strip()
    assert tokens.unread == unread


@BOUNDED
@given(
    st.lists(st.text(max_size=30).filter(lambda text: MARKER not in text), min_size=2, max_size=4)
)
def test_any_text_fills_the_window_exactly(tokenizer: Tokenizer, parts: list[str]) -> None:
    prompt = f" {MARKER} ".join(parts)
    try:
        tokens = tokenizer.prompt_tokens(prompt, prompt.count(MARKER))
    except PromptError:
        event("refused")
        return
    assert tokens.text_ids.shape == tokens.subject_ids.shape == (77,)
    assert tokens.text_ids.tolist() == tokenizer.text_ids(prompt.replace(MARKER, "")).tolist()
    assert list(tokens.subject_positions) == sorted(set(tokens.subject_positions))
    assert all(0 < position < 77 for position in tokens.subject_positions)
