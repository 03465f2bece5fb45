"""Face-Diffuser in small: a drawn world, the model trained on it, and the training."""
