"""What the toolkit asks of the operating system: child processes, and memory given back."""
