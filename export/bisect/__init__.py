"""Which layer of a half-precision graph drifts, and what to keep in float32."""
