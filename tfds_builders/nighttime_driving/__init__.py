"""TFDS builder: Nighttime Driving."""
