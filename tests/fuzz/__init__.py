"""Inputs damaged at random, with seeds, and what must never come of it. CI runs a slice of each."""
