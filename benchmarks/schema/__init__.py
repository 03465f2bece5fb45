"""What a record of each benchmark says: one module for each, read by the report without torch."""
