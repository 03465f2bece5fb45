"""The HTTP routes, and what their bodies and answers are."""
