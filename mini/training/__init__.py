"""The training of the shipped model: each stage's modules, data and loss."""
