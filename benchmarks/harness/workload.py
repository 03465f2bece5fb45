"""What is drawn when speed is measured: the same people, words and seeds in every benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import OutputType, Request

SEED = 3407
GUIDANCE_SCALE = 5.0
STEPS, QUICK_STEPS = 50, 10
_REFERENCES = Path(__file__).parents[2] / "examples" / "references"
REFERENCES = (_REFERENCES / "him.png", _REFERENCES / "her.png")
_NOUNS = ("a man", "a woman")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One request's size. size_px: height and width; None takes the model's own."""

    steps: int = STEPS
    images: int = 1
    people: int = 2
    size_px: int | None = None

    def request(self, **changes: Any) -> Request:
        """The request; `changes` replace its fields."""
        fields: dict[str, Any] = {
            "prompt": prompt(self.people),
            "references": references(self.people),
            "num_inference_steps": self.steps,
            "guidance_scale": GUIDANCE_SCALE,
            "seed": SEED,
            "num_images": self.images,
            "height": self.size_px,
            "width": self.size_px,
            "output_type": OutputType.NP,
        }
        return Request(**(fields | changes))


def prompt(people: int) -> str:
    """A prompt with so many people in it."""
    named = [f"{_NOUNS[number % 2]} <|image|>" for number in range(people)]
    return " and ".join(named) + " in a park"


def references(people: int) -> list[Path]:
    """A photo for each of them; from the third on they come again."""
    return [REFERENCES[number % 2] for number in range(people)]
