"""People between requests: embeddings alone, encrypted, with a tenant, an expiry and a consent."""
