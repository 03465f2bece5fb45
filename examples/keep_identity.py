"""Encode a person once, draw them often: python examples/keep_identity.py [BUNDLE [STEPS]]

An identity is personal data as much as the photo is.
"""

import sys
from pathlib import Path

from face_diffuser import FaceDiffuser, Identity, Request

HER = Path(__file__).parent / "references" / "her.png"
KEPT = Path("her.identity")


def main(bundle: str = "bundle", steps: str = "50") -> None:
    with FaceDiffuser.open(bundle) as face_diffuser:
        if not KEPT.exists():
            face_diffuser.encode_reference(HER).save(KEPT)
        her = Identity.load(KEPT)
        for place in ("park", "forest"):
            request = Request(
                prompt=f"a woman <|image|> in a {place}",
                references=[her],
                num_inference_steps=int(steps),
                seed=2,
            )
            face_diffuser.generate(request).images[0].save(f"{place}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
