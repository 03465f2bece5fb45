"""What only a machine with a GPU and TensorRT can show: `pytest -m tensorrt`."""
