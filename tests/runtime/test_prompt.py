"""Tokenization against the released code's ids, and its departures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from runtime import PromptError
from runtime.prompt import MARKER, Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
ROWS = json.loads((GOLDEN / "tokenizer_rows.json").read_text())["rows"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend = CLIPTokenizer.from_pretrained(GOLDEN / "base" / "tokenizer").backend_tokenizer
    path.write_text(backend.to_str())
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
        ("a man <|image|>", 2, "has 1 .* 2 references"),
        ("a man", 0, "has 0"),
        ("<|image|> a man", 1, "no word of its own"),
        ("a man <|image|><|image|>", 2, "number 2 has no word"),
        ("very " * 90 + "old man <|image|>", 1, "shorten the prompt"),
    ],
)
def test_a_prompt_that_would_lose_a_person_is_refused(
    prompt: str, references: int, reason: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(PromptError, match=reason):
        tokenizer.prompt_tokens(prompt, references)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(max_size=30).filter(lambda text: MARKER not in text), min_size=2, max_size=4)
)
def test_any_text_fills_the_window_exactly(tokenizer: Tokenizer, parts: list[str]) -> None:
    prompt = f" {MARKER} ".join(parts)
    try:
        tokens = tokenizer.prompt_tokens(prompt, prompt.count(MARKER))
    except PromptError:
        return
    assert tokens.text_ids.shape == tokens.subject_ids.shape == (77,)
    assert list(tokens.subject_positions) == sorted(set(tokens.subject_positions))
    assert all(0 < position < 77 for position in tokens.subject_positions)
