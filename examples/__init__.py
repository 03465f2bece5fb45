"""Examples: the small model that ships with the repository."""
