"""Drawing beside an event loop: python examples/own_thread.py [BUNDLE [STEPS]]

Calls from any thread take turns, so many threads would only wait. One thread draws; handlers wait
for it without blocking the loop, and no other thread of the application is used up.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from face_diffuser import FaceDiffuser, Request

REFERENCES = Path(__file__).parent / "references"


async def serve(bundle: str, steps: int) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=1) as drawing:
        face_diffuser = await loop.run_in_executor(drawing, FaceDiffuser.open, bundle)

        async def handler(prompt: str, photo: str) -> None:
            references = [REFERENCES / photo]
            request = Request(
                prompt=prompt, references=references, num_inference_steps=steps, seed=4
            )
            result = await loop.run_in_executor(drawing, face_diffuser.generate, request)
            result.images[0].save(photo)

        await asyncio.gather(
            handler("a man <|image|> in a park", "him.png"),
            handler("a woman <|image|> in a park", "her.png"),
        )
        await loop.run_in_executor(drawing, face_diffuser.close)


def main(bundle: str = "bundle", steps: str = "50") -> None:
    asyncio.run(serve(bundle, int(steps)))


if __name__ == "__main__":
    main(*sys.argv[1:])
