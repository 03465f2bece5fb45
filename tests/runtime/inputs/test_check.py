"""What is refused of a request before anything is drawn, as `generate` refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime import FaceDiffuser, Request, RequestError
from runtime.inputs.check import RequestCheck
from tests.paths import GOLDEN

HIM = GOLDEN / "refs" / "man1.png"
GOOD: dict[str, Any] = {"prompt": "a man <|image|>", "references": [HIM], "num_inference_steps": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a man"},
        {"prompt": "<|image|>"},
        {"prompt": "a man <|image|> \ud800"},
        {"negative_prompt": "\ud800"},
    ],
    ids=lambda changes: ascii(changes),
)
def test_a_check_refuses_what_generate_would(changes: dict[str, Any], golden_bundle: Path) -> None:
    request = Request(**GOOD | changes)
    with pytest.raises(RequestError) as checked:
        RequestCheck.open(golden_bundle).check(request)
    with (
        FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as face_diffuser,
        pytest.raises(RequestError) as drawn,
    ):
        face_diffuser.generate(request)
    assert (type(checked.value), str(checked.value)) == (type(drawn.value), str(drawn.value))


def test_a_check_lets_through_what_can_be_drawn(golden_bundle: Path) -> None:
    RequestCheck.open(golden_bundle).check(Request(**GOOD))
