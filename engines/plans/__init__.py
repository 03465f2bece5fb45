"""Building TensorRT plans for a bundle, and proving each before it is published."""
