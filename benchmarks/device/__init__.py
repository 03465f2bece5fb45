"""A GPU measured with the CUDA driver, numpy and the bundle alone: no PyTorch, no compiler."""
