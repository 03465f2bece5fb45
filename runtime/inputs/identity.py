"""An encoded person, kept for many requests and across processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.bundle.files import write_atomic
from engines.errors import ReferenceImageError

_FORMAT = "face-diffuser identity 1"


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
        if not isinstance(self.encoder, str) or not self.reference_resolution >= 1:
            raise ReferenceImageError("an identity names its encoder and a resolution from 1 px")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically. It is personal data as much as the photo."""
        from safetensors.numpy import save

        metadata = {
            "format": _FORMAT,
            "encoder": self.encoder,
            "reference_resolution": str(self.reference_resolution),
        }
        write_atomic(Path(path), save({"embeds": np.ascontiguousarray(self.embeds)}, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Identity:
        """Read what save wrote; raises ReferenceImageError for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ReferenceImageError("this is no identity; make one with Identity.save")
                return cls(
                    embeds=file.get_tensor("embeds"),
                    encoder=metadata["encoder"],
                    reference_resolution=int(metadata["reference_resolution"]),
                )
        except ReferenceImageError as error:
            raise ReferenceImageError(f"{path}: {error}") from error
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ReferenceImageError(f"{path} is not a readable identity: {error}") from error
