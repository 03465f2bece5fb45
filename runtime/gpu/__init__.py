"""Drawing on a GPU: engines on device buffers, kernels between them."""
