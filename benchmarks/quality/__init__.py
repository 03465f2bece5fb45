"""Whether the pictures show the right people in the right scene."""
