"""Who people are: the attributes of an identity, and which identities training never sees."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass

# Every attribute of an identity with its values. The man, woman, boy or girl is in the caption.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "kind": ("man", "woman", "boy", "girl"),
    "skin": ("pale", "peach", "tan", "brown", "dark"),
    "hair_color": ("black", "brown", "blond", "red", "silver", "pink"),
    "hair_style": ("short", "spiky", "curly", "long", "bun", "bob"),
    "eye_color": ("brown", "blue", "green", "amber"),
    "glasses": ("none", "round", "square"),
    "beard": ("none", "mustache", "full"),
    "hat": ("none", "cap", "beanie", "straw"),
    "clothes_color": ("red", "yellow", "green", "blue", "purple", "white", "charcoal"),
    "pattern": ("plain", "stripes", "dots", "star"),
}

_HAIR_STYLES = {
    "man": ("short", "spiky", "curly", "long"),
    "boy": ("short", "spiky", "curly", "bob"),
    "woman": ("long", "bun", "bob", "curly", "short"),
    "girl": ("long", "bun", "bob", "curly"),
}
_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Look:
    """An identity: one value of each attribute. Raises ValueError for a value there is not."""

    kind: str
    skin: str
    hair_color: str
    hair_style: str
    eye_color: str
    glasses: str
    beard: str
    hat: str
    clothes_color: str
    pattern: str

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value not in ATTRIBUTES[name]:
                raise ValueError(f"{name} must be one of {ATTRIBUTES[name]}, got {value!r}")

    @property
    def held_out(self) -> bool:
        """True for the tenth of all identities that only evaluation draws."""
        digest = hashlib.sha256(repr(self).encode()).digest()
        return int.from_bytes(digest[:4]) < _HELD_OUT_SHARE * 2**32

    def labels(self) -> dict[str, int]:
        """Each attribute's value as its index in ATTRIBUTES."""
        return {name: ATTRIBUTES[name].index(value) for name, value in asdict(self).items()}


def random_look(rng: random.Random, *, held_out: bool) -> Look:
    """An identity of one side of the split."""
    while True:
        look = _any_look(rng)
        if look.held_out == held_out:
            return look


def _any_look(rng: random.Random) -> Look:
    kind = rng.choice(ATTRIBUTES["kind"])
    values = {name: rng.choice(values) for name, values in ATTRIBUTES.items()}
    values["kind"] = kind
    values["hair_style"] = rng.choice(_HAIR_STYLES[kind])
    values["beard"] = rng.choice(("none", "mustache", "full")) if kind == "man" else "none"
    values["glasses"] = rng.choice(("none", "none", "round", "square"))
    values["hat"] = rng.choice(("none", "none", "none", "cap", "beanie", "straw"))
    return Look(**values)
