"""Running TensorRT plans, and all that is spoken with TensorRT itself."""
