"""Doubles of vendor modules: the few objects that are used, computing on the CPU."""
