"""Plain float64 twins of the kernels and formulas, written from the papers, one file each."""
