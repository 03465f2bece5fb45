"""One plan built in a process of its own: from its ONNX model to its proved bytes."""
