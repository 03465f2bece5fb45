"""What only a GPU can show: `pytest -m gpu`. Skipped, with the reason, where there is none."""
