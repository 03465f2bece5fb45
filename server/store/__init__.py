"""What servers share: identities, tenants' limits and keys of requests, in SQLite or PostgreSQL."""
