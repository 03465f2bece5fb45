"""Three texts and the people reach the encoders as the method says, and what comes of each pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.contract import Component
from engines.engine import Array
from engines.guides import Pass
from runtime import Identity
from runtime.conditioning import Conditioning
from runtime.inputs.prompt import MARKER, Tokenizer
from tests.doubles.small_bundle import DIMENSIONS, WIDTH
from tests.doubles.small_tokenizer import clip_tokenizer
from tests.paths import GOLDEN

TOKENS = DIMENSIONS.tokens


class _Encoders:
    """A backend that answers with what tells its inputs apart, in half precision."""

    provider, nests = "none", True

    def __init__(self) -> None:
        self.asked: dict[Component, Mapping[str, Array]] = {}

    def run(
        self, component: Component, inputs: Mapping[str, Array], output_shape: tuple[int, ...]
    ) -> Array:
        self.asked[component] = {name: np.array(each) for name, each in inputs.items()}
        answer = np.zeros(output_shape, np.float16)
        match component:
            case Component.TEXT_ENCODER:
                answer[:] = np.arange(1, len(answer) + 1)[:, None, None]
            case Component.FUSION_MLP:
                answer[:] = 10 * inputs["text_embeds"]
            case _:
                answer[:] = inputs["reference_pixels"].shape[-1]
        return answer

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody should ask for {name}")


def _identity(value: float) -> Identity:
    embeds = np.full(WIDTH, value, np.float32)
    return Identity(embeds=embeds, encoder="this", reference_resolution=512)


@pytest.fixture
def encoders() -> _Encoders:
    return _Encoders()


@pytest.fixture
def conditioning(encoders: _Encoders) -> Conditioning:
    return Conditioning(encoders, DIMENSIONS, "this")


def test_a_long_prompt_is_encoded_three_times_and_each_pass_gets_its_own(
    conditioning: Conditioning, encoders: _Encoders
) -> None:
    tokenizer = Tokenizer(clip_tokenizer(), TOKENS)
    prompt = f"a man {MARKER} and a woman {MARKER} " + "in the snow " * 30
    tokens = tokenizer.prompt_tokens(prompt, 2)
    negative = tokenizer.text_ids("rain")
    embeds = conditioning.pass_embeds(tokens, negative, [_identity(3.0), _identity(4.0)])
    ids = encoders.asked[Component.TEXT_ENCODER]["input_ids"]
    np.testing.assert_array_equal(ids, [negative, tokens.text_ids, tokens.subject_ids])
    assert len({row.tobytes() for row in ids}) == 3, "only a cut prompt tells the last two apart"
    fused = encoders.asked[Component.FUSION_MLP]
    assert (fused["text_embeds"] == 3).all(), "the row of the subject's ids"
    first, second = tokens.subject_positions
    assert np.flatnonzero(fused["subject_token_mask"][0]).tolist() == [first, second]
    people = fused["token_subject_embeds"][0]
    assert (people[first] == 3).all() and (people[second] == 4).all()
    assert not people[~fused["subject_token_mask"][0]].any()
    assert {each: float(rows[0, 0]) for each, rows in embeds.items()} == {
        Pass.NULL: 1.0, Pass.TEXT: 2.0, Pass.AUGMENTED: 30.0
    }  # fmt: skip
    for rows in embeds.values():
        assert rows.shape == (TOKENS, WIDTH)
        assert rows.dtype == np.float32


def test_a_person_without_a_place_is_an_error(conditioning: Conditioning) -> None:
    tokenizer = Tokenizer(clip_tokenizer(), TOKENS)
    tokens = tokenizer.prompt_tokens(f"a man {MARKER}", 1)
    with pytest.raises(ValueError, match="argument 2"):
        conditioning.pass_embeds(tokens, tokens.text_ids, [_identity(1), _identity(2)])


def test_a_photo_is_prepared_for_the_encoder_and_kept_with_its_resolution(
    conditioning: Conditioning, encoders: _Encoders
) -> None:
    identity = conditioning.identity(Path(GOLDEN / "refs" / "man1.png"), 48)
    pixels = encoders.asked[Component.IMAGE_ENCODER]["reference_pixels"]
    side = DIMENSIONS.image_px
    assert pixels.shape == (1, 3, side, side)
    # Normalized with mean and deviation 0.5: 0 to 255 is -1 to 1.
    assert -1 <= pixels.min() < -0.5 < 0.5 < pixels.max() <= 1
    assert (identity.encoder, identity.reference_resolution) == ("this", 48)
    assert identity.embeds.dtype == np.float32
    assert (identity.embeds == side).all()
    assert conditioning.identity(identity, 512) is identity
