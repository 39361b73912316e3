"""TFDS builder: ACDC."""
