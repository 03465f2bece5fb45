"""Our view of TensorRT against its real bindings, without its native libraries."""
