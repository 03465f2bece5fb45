"""One picture taken apart: components, stages, host time, start-up, and all of it as text."""
