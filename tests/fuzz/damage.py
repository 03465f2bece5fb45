"""Bytes damaged as disks, transfers and programs damage them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Damage = Callable[[bytes, Random], bytes]


def _place(content: bytes, random: Random) -> tuple[int, int]:
    """A stretch inside the content, most often a short one."""
    start = random.randrange(len(content))
    return start, min(len(content), start + int(2 ** random.uniform(0, 10)))


def truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _filled(value: int) -> Damage:
    def filled(content: bytes, random: Random) -> bytes:
        start, end = _place(content, random)
        return content[:start] + bytes([value]) * (end - start) + content[end:]

    return filled


def _noise(content: bytes, random: Random) -> bytes:
    start, end = _place(content, random)
    return content[:start] + random.randbytes(end - start) + content[end:]


def _cut_out(content: bytes, random: Random) -> bytes:
    start, end = _place(content, random)
    return content[:start] + content[end:]


def _twice(content: bytes, random: Random) -> bytes:
    start, end = _place(content, random)
    return content[:end] + content[start:]


def _inserted(content: bytes, random: Random) -> bytes:
    start, end = _place(content, random)
    return content[:start] + random.randbytes(end - start) + content[start:]


def _swapped(content: bytes, random: Random) -> bytes:
    half = len(content) // 2
    start, end = _place(content[:half], random)
    return (
        content[:start]
        + content[half + start : half + end]
        + content[end : half + start]
        + content[start:end]
        + content[half + end :]
    )


def _with_head_noise(content: bytes, random: Random) -> bytes:
    """Headers are where decoders believe what they read."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(min(len(changed), 64))] = random.choice((0, 1, 127, 128, 255))
    return bytes(changed)


DAMAGES: dict[str, Damage] = {
    "truncated": truncated,
    "bits flipped": _flipped,
    "zeros": _filled(0),
    "ones": _filled(255),
    "noise": _noise,
    "cut out": _cut_out,
    "twice": _twice,
    "inserted": _inserted,
    "swapped": _swapped,
    "head": _with_head_noise,
}
