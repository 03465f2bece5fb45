"""Who drew which pixel: python examples/maps.py [BUNDLE [STEPS]]

Writes, for each step of the fusion stage, the picture with the mask over it (SDM orange, TDM blue),
with TDM's saliency, and with SDM's.
"""

import sys
from pathlib import Path

from face_diffuser import FaceDiffuser, Request, grid

HIM = Path(__file__).parent / "references" / "him.png"


def main(bundle: str = "bundle", steps: str = "50") -> None:
    request = Request(
        prompt="a man <|image|> in the snow",
        references=[HIM],
        num_inference_steps=int(steps),
        seed=3,
        saliency=True,
    )
    with FaceDiffuser.open(bundle) as face_diffuser:
        result = face_diffuser.generate(request)
    assert result.saliency is not None
    for place, each in enumerate(result.saliency):
        seen = [
            result.saliency.overlay(step=place, shown=shown) for shown in ("mask", "tdm", "sdm")
        ]
        grid(seen, columns=3).save(f"maps-{each.step:02}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
