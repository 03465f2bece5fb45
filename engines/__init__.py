"""From a bundle to components that compute, on whatever this machine has; without PyTorch."""
