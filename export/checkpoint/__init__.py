"""Reading checkpoints: which weights each component takes, and from where."""
