"""From trained checkpoints to a bundle: ONNX models, kernels, checks."""
