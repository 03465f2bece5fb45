"""The GPU through the CUDA driver: memory, streams, graphs and kernel launches."""
