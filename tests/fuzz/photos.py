"""`python -m tests.fuzz.photos [COUNT] [SEED]`: damaged photos through the runtime's reader."""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections import Counter
from random import Random
from typing import Any

import numpy as np
from PIL import Image, features

from runtime import FaceDiffuserError
from runtime.inputs.photo import load_reference
from tests.fuzz.damage import DAMAGES

SLOW_S = 20.0
# Formats whose pixels carry a checksum: a changed pixel is seen.
_CHECKED = ("PNG",)


def photos() -> dict[str, bytes]:
    """The same picture in every format and variant that people have."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (9, 7, 3), np.uint8)
    rgb = Image.fromarray(small).resize((70, 90), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6
    deep = Image.fromarray((np.asarray(rgb.convert("L")).astype(np.uint16)) * 257)
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "PNG": (rgb, "PNG", {}),
        "PNG gray": (rgb.convert("L"), "PNG", {}),
        "PNG alpha": (rgb.convert("RGBA"), "PNG", {}),
        "PNG palette": (rgb.convert("P"), "PNG", {"transparency": 3}),
        "PNG 16 bits": (deep, "PNG", {}),
        "PNG turned": (rgb, "PNG", {"exif": exif}),
        "JPEG": (rgb, "JPEG", {}),
        "JPEG progressive": (rgb, "JPEG", {"progressive": True}),
        "JPEG turned": (rgb, "JPEG", {"exif": exif, "comment": "a comment"}),
        "JPEG inks": (rgb.convert("CMYK"), "JPEG", {}),
        "WebP": (rgb, "WEBP", {}),
        "WebP exact": (rgb, "WEBP", {"lossless": True}),
        "GIF": (rgb.convert("P"), "GIF", {}),
        "GIF animated": (rgb.convert("P"), "GIF", {"save_all": True, "append_images": [rgb]}),
        "BMP": (rgb, "BMP", {}),
        "TIFF": (rgb, "TIFF", {}),
        "TIFF LZW": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "TIFF 16 bits": (deep, "TIFF", {}),
        "PPM": (rgb, "PPM", {}),
        "TGA": (rgb, "TGA", {"compression": "tga_rle"}),
        "ICO": (rgb, "ICO", {}),
        "AVIF": (rgb, "AVIF", {}),
    }
    files = {}
    for name, (image, kind, words) in kinds.items():
        if kind != "AVIF" or features.check("avif"):
            stream = io.BytesIO()
            image.save(stream, kind, **words)
            files[name] = stream.getvalue()
    return files


def outcome(name: str, damage: str, whole: bytes, damaged: bytes) -> str:
    """What came of one damaged photo; a fault begins with FAULT."""
    start = time.perf_counter()
    try:
        pixels = load_reference(damaged)
    except FaceDiffuserError as error:
        found = "refused" if len(str(error)) < 600 else "FAULT: a message without end"
    except Exception as error:
        found = f"FAULT: {type(error).__name__} from {name}, {damage}"
    else:
        # A damaged word on how it is turned is ignored.
        wanted = load_reference(whole)
        as_whole = any(np.array_equal(pixels, np.rot90(wanted, turns)) for turns in range(4))
        checked = name.startswith(_CHECKED) or damage == "truncated"
        altered = f"FAULT: other pixels of {name}, {damage}" if checked else "other pixels"
        found = "same pixels" if as_whole else altered
    if time.perf_counter() - start > SLOW_S:
        return f"FAULT: {name}, {damage} took more than {SLOW_S:.0f} s"
    return found


def main(count: int = 1200, seed: int = 13) -> Counter[str]:
    random, files = Random(seed), photos()
    outcomes: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
        for number in range(count):
            name = list(files)[number % len(files)]
            damage = random.choice(list(DAMAGES))
            damaged = DAMAGES[damage](files[name], random)
            outcomes[outcome(name, damage, files[name], damaged)] += 1
    return outcomes


if __name__ == "__main__":
    tally = main(*map(int, sys.argv[1:]))
    print(*(f"{count:6} {found}" for found, count in sorted(tally.items())), sep="\n")
    sys.exit(any(found.startswith("FAULT") for found in tally))
