"""U-Nets in 8 bits: which of their products, at which scales, and whether the pictures hold."""
