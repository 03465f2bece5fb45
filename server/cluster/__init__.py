"""The same server on a Ray cluster: its engines are replicas of a Ray Serve deployment."""
