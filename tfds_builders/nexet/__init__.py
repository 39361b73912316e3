"""TFDS builder: NEXET 2017."""
