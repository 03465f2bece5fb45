"""Each component as a torch module, and from there to ONNX."""
