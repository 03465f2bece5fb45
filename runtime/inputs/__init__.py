"""What a request brings: people's photos, identities and the prompt."""
