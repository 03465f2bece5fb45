"""Two people in one scene, twice: python examples/two_people.py [BUNDLE [STEPS]]"""

import sys
from pathlib import Path

from face_diffuser import FaceDiffuser, Request

REFERENCES = Path(__file__).parent / "references"


def main(bundle: str = "bundle", steps: str = "50") -> None:
    request = Request(
        # One <|image|> after the word for each person, one photo for each, in the same order.
        prompt="a man <|image|> and a woman <|image|> in a park",
        references=[REFERENCES / "him.png", REFERENCES / "her.png"],
        num_inference_steps=int(steps),
        num_images=2,
        seed=0,
    )
    with FaceDiffuser.open(bundle) as face_diffuser:
        result = face_diffuser.generate(request)
    for seed, picture in zip(result.seeds, result.images, strict=True):
        picture.save(f"park-{seed}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
