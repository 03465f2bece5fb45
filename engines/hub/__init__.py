"""Bundles in repositories of the Hugging Face hub, brought here before they are opened."""
