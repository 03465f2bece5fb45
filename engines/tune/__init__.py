"""What computes a bundle's U-Nets fastest on this processor, found by measuring it."""
