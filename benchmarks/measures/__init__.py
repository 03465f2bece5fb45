"""One module for each name that `python -m benchmarks` knows."""
