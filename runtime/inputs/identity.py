"""An encoded person, kept for many requests and across processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.bundle.files import write_atomic
from engines.errors import ReferenceImageError

_FORMAT = "face-diffuser identity 2"
# Files of the first format carry no digest.
_FORMATS = (_FORMAT, "face-diffuser identity 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity:
    """What the image encoder says of one reference image.

    embeds: [subject_width] float32. encoder: digest of the image encoder that made it; an identity
    serves only bundles with that encoder. reference_resolution: px the photo was brought to first.
    """

    embeds: npt.NDArray[np.float32]
    encoder: str
    reference_resolution: int

    def __post_init__(self) -> None:
        embeds = self.embeds
        if not isinstance(embeds, np.ndarray) or embeds.ndim != 1 or embeds.dtype != np.float32:
            raise ReferenceImageError(
                "an identity's embeds must be float32 [subject_width]; "
                "make one with FaceDiffuser.encode_reference"
            )
        if not embeds.size or not np.isfinite(embeds).all():
            raise ReferenceImageError("an identity's embeds must be finite; encode the photo again")
        # A copy of its own, so that what was checked is what is drawn.
        embeds = embeds.copy()
        embeds.setflags(write=False)
        object.__setattr__(self, "embeds", embeds)
        resolution: object = self.reference_resolution
        is_whole = isinstance(resolution, Integral) and not isinstance(resolution, bool)
        if not isinstance(self.encoder, str) or not is_whole or self.reference_resolution < 1:
            raise ReferenceImageError("an identity names its encoder and a resolution from 1 px")

    def __repr__(self) -> str:
        """Whose encoder and what size, and nothing of the person."""
        return (
            f"Identity({len(self.embeds)} numbers, encoder={self.encoder[:12]!r}, "
            f"reference_resolution={self.reference_resolution})"
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically and for its owner's eyes alone (mode 0600).

        It is personal data as much as the photo. Raises FileRefusedError where a link, a device or
        a read-only file lies there.
        """
        from safetensors.numpy import save

        metadata = {
            "format": _FORMAT,
            "encoder": self.encoder,
            "reference_resolution": str(self.reference_resolution),
            "digest": self._digest(),
        }
        content = save({"embeds": np.ascontiguousarray(self.embeds)}, metadata)
        write_atomic(Path(path), content, mode=0o600)

    @classmethod
    def load(cls, path: str | Path) -> Identity:
        """Read what save wrote; raises ReferenceImageError for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            if not Path(path).is_file():
                raise ReferenceImageError("there is no such file")
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") not in _FORMATS:
                    raise ReferenceImageError("this is no identity; make one with Identity.save")
                loaded = cls(
                    embeds=file.get_tensor("embeds"),
                    encoder=metadata["encoder"],
                    reference_resolution=int(metadata["reference_resolution"]),
                )
            has_digest = metadata["format"] == _FORMAT or "digest" in metadata
            if has_digest and metadata["digest"] != loaded._digest():
                raise ReferenceImageError("it was altered or damaged; encode the photo again")
        except ReferenceImageError as error:
            raise ReferenceImageError(f"{path}: {error}") from error
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
            raise ReferenceImageError(
                f"{path} is not a readable identity: {error}; encode the photo again"
            ) from error
        return loaded

    def _digest(self) -> str:
        """SHA-256 of all that an identity says."""
        digest = hashlib.sha256(f"{self.encoder}\n{self.reference_resolution}\n".encode())
        digest.update(self.embeds.astype("<f4").tobytes())
        return digest.hexdigest()
