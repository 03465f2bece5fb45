"""What steers a trajectory: encoded people and the prompt embeds of every guidance pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bundle.manifest import Dimensions
from engines.contract import Component
from engines.errors import ReferenceImageError
from engines.guides import Pass
from runtime.inputs.identity import Identity
from runtime.inputs.photo import Photo, load_reference, reference_pixels
from runtime.inputs.prompt import PromptTokens
from runtime.trajectory import Backend, PassEmbeds


class Conditioning:
    """The three encoders of a bundle. encoder_digest: what makes identities fit."""

    def __init__(self, backend: Backend, dimensions: Dimensions, encoder_digest: str) -> None:
        self._drawn_on = backend
        self._dimensions = dimensions
        self._encoder_digest = encoder_digest

    def encoded(self, image: Photo, reference_resolution: int) -> Identity:
        """A person from one photo; raises ReferenceImageError."""
        size = self._dimensions
        pixels = reference_pixels(
            load_reference(image),
            reference_resolution,
            size.image_px,
            size.image_mean,
            size.image_std,
        )
        embeds = self._drawn_on.run(
            Component.IMAGE_ENCODER, {"reference_pixels": pixels[None]}, (1, size.subject_width)
        )
        return Identity(
            embeds=embeds[0].astype(np.float32),
            encoder=self._encoder_digest,
            reference_resolution=reference_resolution,
        )

    def identity(self, reference: Any, reference_resolution: int) -> Identity:
        """A reference as an identity of this bundle's encoder; raises ReferenceImageError."""
        if not isinstance(reference, Identity):
            return self.encoded(reference, reference_resolution)
        if reference.encoder != self._encoder_digest:
            raise ReferenceImageError(
                "this identity was encoded by another image encoder than this bundle's; "
                "encode the photo again with FaceDiffuser.encode_reference"
            )
        if (width := len(reference.embeds)) != self._dimensions.subject_width:
            raise ReferenceImageError(
                f"this identity is {width} numbers wide, this bundle's image encoder gives "
                f"{self._dimensions.subject_width}; encode the photo again with "
                "FaceDiffuser.encode_reference"
            )
        return reference

    def pass_embeds(
        self,
        tokens: PromptTokens,
        negative_ids: npt.NDArray[np.int32],
        identities: Sequence[Identity],
    ) -> PassEmbeds:
        """Prompt embeds of every guidance pass, each [tokens, text_width] float32."""
        size = self._dimensions
        ids = np.stack([negative_ids, tokens.text_ids, tokens.subject_ids])
        shape = (len(ids), size.tokens, size.text_width)
        encoded = self._drawn_on.run(Component.TEXT_ENCODER, {"input_ids": ids}, shape)
        null, text, subject = encoded.astype(np.float32)

        token_subject_embeds = np.zeros((1, size.tokens, size.subject_width), np.float32)
        mask = np.zeros((1, size.tokens), np.bool_)
        for position, identity in zip(tokens.subject_positions, identities, strict=True):
            token_subject_embeds[0, position] = identity.embeds
            mask[0, position] = True
        augmented = self._drawn_on.run(
            Component.FUSION_MLP,
            {
                "text_embeds": subject[None],
                "token_subject_embeds": token_subject_embeds,
                "subject_token_mask": mask,
            },
            (1, *shape[1:]),
        )
        return {
            Pass.NULL: null,
            Pass.TEXT: text,
            Pass.AUGMENTED: augmented[0].astype(np.float32),
        }
