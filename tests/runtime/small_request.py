"""The smallest request that draws, of the reference people."""

from __future__ import annotations

from typing import Any

from runtime import Request
from tests.paths import GOLDEN

HIM, HER = GOLDEN / "refs" / "man1.png", GOLDEN / "refs" / "woman2.png"


def small(**changes: Any) -> Request:
    """3 steps at 64 px to latents, changed as a test needs it."""
    fields: dict[str, Any] = {
        "prompt": "a man <|image|> in the snow", "references": [HIM], "num_inference_steps": 3,
        "seed": 5, "height": 64, "width": 64, "output_type": "latent",
    }  # fmt: skip
    return Request(**(fields | changes))
