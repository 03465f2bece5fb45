"""What all measurements share: the machine, records, timing, workers and the work itself."""
