"""What proves a plan: its types, its fused attention, and comparisons with the CPU."""
