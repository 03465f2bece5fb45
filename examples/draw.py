"""One person in a scene: python examples/draw.py [BUNDLE [STEPS]]"""

import sys
from pathlib import Path

from face_diffuser import FaceDiffuser, Request

HIM = Path(__file__).parent / "references" / "him.png"


def main(bundle: str = "bundle", steps: str = "50") -> None:
    request = Request(
        prompt="a man <|image|> reading in a park",
        references=[HIM],
        num_inference_steps=int(steps),
        seed=7,
    )
    with FaceDiffuser.open(bundle) as face_diffuser:
        result = face_diffuser.generate(request)
    result.images[0].save("reading.png")
    print(f"reading.png: seed {result.seed}, {result.timings_ms['total']:.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
