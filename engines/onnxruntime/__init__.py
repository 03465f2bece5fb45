"""ONNX Runtime: its CPU and its CUDA provider."""
