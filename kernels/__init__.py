"""The Triton sources, one file per kernel: what the GPU runs between two U-Net calls.

`fuse_noise` is saliency-adaptive noise fusion for any two epsilon models in PyTorch (docs/snf.md).
"""

from kernels.noise_fusion import fuse_noise

__all__ = ["fuse_noise"]
