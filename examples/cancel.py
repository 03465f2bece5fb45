"""A picture within some seconds, or none: python examples/cancel.py [BUNDLE [SECONDS]]"""

import sys
import time
from pathlib import Path

from face_diffuser import CancelledError, FaceDiffuser, Request, StepInfo

HIM = Path(__file__).parent / "references" / "him.png"


def main(bundle: str = "bundle", seconds: str = "5") -> None:
    request = Request(prompt="a man <|image|> in a forest", references=[HIM], seed=1)
    with FaceDiffuser.open(bundle) as face_diffuser:
        deadline = time.monotonic() + float(seconds)

        def in_time(_: StepInfo) -> bool:
            return time.monotonic() < deadline

        try:
            result = face_diffuser.generate(request, on_step=in_time)
        except CancelledError as error:
            print(error)
        else:
            result.images[0].save("forest.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
