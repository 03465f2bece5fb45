"""The Triton sources, one file per kernel: what the GPU runs between two U-Net calls.

`fuse_noise` is saliency-adaptive noise fusion for any two epsilon models in PyTorch (docs/snf.md).
It is imported when it is first used: transformers looks for a Hugging Face package of our name and
imports what it finds, which must neither cost time nor decide how the kernels are run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.noise_fusion import fuse_noise

__all__ = ["fuse_noise"]


def __getattr__(name: str) -> Any:
    if name != "fuse_noise":
        raise AttributeError(f"module 'kernels' has no attribute {name!r}")
    from kernels.noise_fusion import fuse_noise

    return fuse_noise
