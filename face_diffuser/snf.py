"""Saliency-adaptive Noise Fusion for any two epsilon models in PyTorch (docs/snf.md)."""

from kernels import fuse_noise

__all__ = ["fuse_noise"]
