"""Whether the tests notice broken code: mutants of cosmic-ray, sampled by a seed."""
