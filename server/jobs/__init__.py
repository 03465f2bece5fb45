"""Pictures that were asked for: admitted, queued, drawn by one owner, kept a while."""
