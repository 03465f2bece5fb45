"""The kernels between two U-Net calls, by themselves."""
