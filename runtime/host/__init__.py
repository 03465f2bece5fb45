"""Drawing on the host: engines on numpy arrays, the formulas in numpy."""
