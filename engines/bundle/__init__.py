"""A bundle on disk: its manifest, its files, and how they are read and written."""
