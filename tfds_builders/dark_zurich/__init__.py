"""TFDS builder: Dark Zurich."""
