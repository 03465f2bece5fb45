"""Latents as small pictures, by the linear map in the manifest: no engine, and no wait for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from engines import commands
from engines.bundle.manifest import LatentPreview
from engines.errors import BundleError
from runtime.method.guidance import Float32Array


@dataclass(frozen=True, kw_only=True)
class Previews:
    """What a bundle has for it; fitted: None in bundles of builds that fitted no map."""

    bundle: Path
    fitted: LatentPreview | None

    def pictures(self, latents: Float32Array) -> list[Image.Image]:
        """One RGB picture of w x h px for each of [images, 4, h, w] latents.

        Raises BundleError where the bundle has no map.
        """
        if self.fitted is None:
            raise BundleError(
                f"{self.bundle} was built without the map that previews are drawn with; build it "
                "again with",
                fix=commands.rebuilt(self.bundle),
            )
        weights = np.array(self.fitted.weights, np.float32)
        bias = np.array(self.fitted.bias, np.float32)
        colors = np.einsum("nchw,cr->nhwr", latents, weights) + bias
        levels = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
        return [Image.fromarray(each) for each in levels]
