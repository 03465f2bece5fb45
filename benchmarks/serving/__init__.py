"""The server under load: what its clients see, and what HTTP costs beside the embedded call."""
