"""What figures are held against: counted work, measured peaks, fits and statistics."""
