"""Who drew which pixel: python examples/maps.py [BUNDLE [STEPS]]

Writes, for each step of the fusion stage, TDM's saliency map, SDM's, and the mask: SDM in white.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from face_diffuser import FaceDiffuser, Request

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
    for each in result.saliency or ():
        tdm, sdm, mask = each.saliency.tdm[0], each.saliency.sdm[0], each.saliency.mask[0]
        side_by_side = np.hstack([tdm / tdm.max(), sdm / sdm.max(), mask])
        Image.fromarray((255 * side_by_side).astype(np.uint8)).save(f"maps-{each.step:02}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
